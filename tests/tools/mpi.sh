#!/bin/sh
# Ranks of MPI: any number has the losses and the file of one, also when it changes in the middle; what goes wrong is a
# sentence on every rank; a killed rank ends the others, and the last file is whole.
#
#   mpi.sh MPIEXEC RANKS FOLDER
set -u
mpiexec=$1
ranks=$2
folder=$3
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder" || exit 1
# Open MPI: as root, and more ranks than cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

fail() {
  echo "BAD: $*"
  exit 1
}
run() { # run RANKS TASK [FILE]
  count=$1
  shift
  timeout 60 "$mpiexec" -n "$count" "$ranks" "$@"
}

for n in 1 2 3 4; do
  run $n verbs || fail "the verbs of $n ranks"
  run $n whole $n.run > $n.losses || fail "status $? of $n ranks"
  cmp $n.losses 1.losses || fail "$n ranks have other losses than one"
  cmp $n.run 1.run || fail "$n ranks have another file than one"
  run $n half half.run > half.losses || fail "status $? of half a run of $n ranks"
  run $((5 - n)) resume half.run > rest.losses || fail "$((5 - n)) ranks do not go on after $n"
  cat half.losses rest.losses | cmp - 1.losses || fail "$((5 - n)) ranks after $n have other losses than one"
  cmp half.run 1.run || fail "$((5 - n)) ranks after $n have another file than one"
done
[ "$(wc -l < 1.losses)" -eq 6 ] || fail "there are not six losses"
run 3 any-order any.run > any.losses || fail "status $? in any order"

# Layers divided among ranks have the logits of one; then the second rank is given a token that there is not.
for n in 1 2 3 4; do
  run $n pipeline model.safetensors > $n.logits 2> error || [ $n -gt 1 ] || fail "status $? of a pipeline of $n ranks"
  cmp $n.logits 1.logits || fail "layers divided among $n ranks have other logits than on one"
  found=$(grep -c "^rank 1 of $n: rwkv: token 29 at position 0 is outside the vocabulary of 29" error)
  [ $n -eq 1 ] || [ "$found" -eq $n ] || { cat error; fail "a rank's bad token is a sentence on $found of $n ranks"; }
done
[ "$(wc -l < 1.logits)" -eq 116 ] || fail "there are not 4 x 29 logits"

says() { # says RANKS LEAST MOST SENTENCE TASK
  count=$1
  least=$2
  most=$3
  sentence=$4
  shift 4
  if run "$count" "$@" > output 2> error; then fail "$* ends with status 0"; fi
  found=$(grep -c "$sentence" error)
  [ "$found" -ge "$least" ] && [ "$found" -le "$most" ] || { cat error; fail "$* says its sentence $found times"; }
}
# Without MPI, the launcher may end a rank before it speaks.
says 2 1 2 'rwkv: MPI is not initialised; call MPI_Init_thread before making an MpiComm' not-initialised
says 2 1 2 'rwkv: MPI is finalised already; make and use an MpiComm before MPI_Finalize' finalised
says 3 3 3 "^rank 1 of 3: rwkv: the ranks must train alike: optimizer is 'betas 0.9 .* on rank 0, optimizer is 'betas 0.8" \
  disagree x.run
says 5 5 5 'rwkv: 5 ranks cannot share 12 sequences evenly; pass a batch that is a multiple of 5' whole x.run
says 2 1 1 'rwkv: rank 0 of 2 has waited 1 s for the others; one of them may have ended' patience
says 2 1 1 'rank 1 has had enough' abort

begun=$(date +%s)
if run 3 killed killed.run > output 2>&1; then fail "a killed rank is not noticed"; fi
grep -q '[Ss]ignal 9' output || fail "nothing says that a rank was killed"  # the launcher does
[ $(($(date +%s) - begun)) -lt 30 ] || fail "a killed rank does not end the others"
run 1 resume killed.run > killed.losses || fail "the file of the killed run is not whole"
tail -n 2 1.losses | cmp -s - killed.losses || tail -n 1 1.losses | cmp - killed.losses || fail "its run goes on otherwise"
echo "all equal"
