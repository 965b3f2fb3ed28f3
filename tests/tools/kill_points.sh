#!/bin/sh
# Kills a training run at every one of its file calls, goes on with what lies there and compares the outcome, byte for
# byte, with that of a run that nobody disturbed. Then lets file calls fail, one at a time. At last it kills a run of 1000
# steps 50 times, each time some steps further, in the middle of a step or of a save. SEED chooses where; without it
# there is another one each day.
#
#   kill_points.sh PROGRAM FOLDER [SEED]
set -u
program=$1
folder=$2
seed=${3:-$(($(date +%s) / 86400))}
calls='open|openat|write|fsync|fdatasync|rename|renameat|renameat2|close|unlink|unlinkat|fchmod|flock'
# Leaks cannot be counted in a process that is being traced.
export ASAN_OPTIONS=detect_leaks=0 LC_ALL=C

rm -rf "$folder"
mkdir -p "$folder/whole" "$folder/run"
if ! command -v strace > /dev/null; then
  echo "skipped: strace is not installed"
  exit 0
fi
if ! why=$(strace -f -o "$folder/probe" -e trace=write -e inject=write:error=ENOSPC:when=1 true 2>&1); then
  echo "skipped: strace may not trace here: $why"
  exit 0
fi

bad=0
complain() {
  echo "BAD: $*"
  [ -s "$folder/output" ] && cat "$folder/output"
  bad=$((bad + 1))
}

# The undisturbed run: its calls and its outcome.
strace -f -o "$folder/calls" -e trace="/^($calls)\$" "$program" "$folder/whole" || exit 1
counts=$(sed -nE "s/^[0-9]+ +($calls)\\(.*/\\1/p" "$folder/calls" | sort | uniq -c)
total=$(echo "$counts" | awk '{ sum += $1 } END { print sum + 0 }')
echo "$counts" | grep -q fsync || { echo "the run brings nothing to the disk"; exit 1; }

# disturb CALL FAULT N: runs the program from the start with a fault at the n-th such call.
disturb() {
  rm -rf "$folder/run"
  mkdir "$folder/run"
  strace -f -o "$folder/trace" -e trace="$1" -e inject="$1:$2:when=$3" "$program" "$folder/run" > "$folder/output" 2>&1
}
# finish WHAT: what lies there must be whole, and the run that goes on from it must end like the undisturbed one.
finish() {
  "$program" --check "$folder/run" > "$folder/output" 2>&1 || { complain "$1: the run file does not load"; return; }
  "$program" "$folder/run" > "$folder/output" 2>&1 || { complain "$1: the run cannot go on"; return; }
  resumes=$((resumes + 1))
  no_temporaries "$1"
  for file in run.safetensors final.safetensors; do
    cmp -s "$folder/whole/$file" "$folder/run/$file" || complain "$1: $file differs in the end"
  done
}

no_temporaries() {
  for file in "$folder"/run/.rwkv-*; do
    [ ! -e "$file" ] || complain "$1: $file is left"
  done
}

kills=0
resumes=0
while read -r count call; do
  n=1
  while [ $n -le "$count" ]; do
    disturb "$call" signal=SIGKILL $n
    status=$?
    if [ $status -eq 137 ]; then kills=$((kills + 1))
    else complain "$call $n: status $status instead of a kill"
    fi
    finish "killed at $call $n"
    n=$((n + 1))
  done
done << END
$counts
END
echo "$total file calls, $kills kills, $resumes resumes, $bad bad"
[ $kills -eq "$total" ] || bad=$((bad + 1))

# A fault that the system reports ends the run with one sentence and leaves nothing behind; an interruption goes by,
# and no system interrupts a rename.
for fault in ENOSPC EIO EDQUOT EINTR; do
  errors=0
  resumes=0
  before=$bad
  while read -r count call; do
    case $fault:$call in *:write | *:fsync | *:fdatasync | E[!I]*:rename* | EIO:rename*) ;; *) continue ;; esac
    n=1
    while [ $n -le "$count" ]; do
      disturb "$call" error=$fault $n
      status=$?
      errors=$((errors + 1))
      if [ $fault = EINTR ]; then
        [ $status -eq 0 ] || complain "$fault at $call $n: status $status"
      else
        [ $status -eq 1 ] || complain "$fault at $call $n: status $status"
        [ "$(grep -c '^kill_points: .*safetensors: ' "$folder/output")" -eq 1 ] ||
          complain "$fault at $call $n: not one clear sentence"
      fi
      no_temporaries "$fault at $call $n"
      finish "$fault at $call $n"
      n=$((n + 1))
    done
  done << END
$counts
END
  echo "$fault: $errors faults, $resumes resumes, $((bad - before)) bad"
done

# Fifty kills of one run.
steps=1000
rm -rf "$folder/whole" "$folder/run"
mkdir "$folder/whole" "$folder/run"
"$program" "$folder/whole" $steps || complain "the run of $steps steps ends with status $?"
awk -v seed="$seed" 'BEGIN { srand(seed); for (i = 0; i < 50; ++i) print 3 + int(rand() * 15), int(rand() * 3000) }' > "$folder/kills"
kills=0
left=0
before=$bad
while read -r further time; do
  "$program" "$folder/run" $steps "$further" "$time" > "$folder/output" 2>&1
  status=$?
  if [ $status -eq 137 ]; then kills=$((kills + 1))
  else complain "$further steps further: status $status instead of a kill"
  fi
  for file in "$folder"/run/.rwkv-*; do
    [ ! -e "$file" ] || left=$((left + 1))
  done
  "$program" --check "$folder/run" $steps > "$folder/output" 2>&1 || complain "killed $kills times: the run file does not load"
  [ ! -e "$folder/run/run.safetensors" ] || no_temporaries "killed $kills times"
done < "$folder/kills"
"$program" "$folder/run" $steps > "$folder/output" 2>&1 || complain "the run cannot go on"
for file in run.safetensors final.safetensors; do
  cmp -s "$folder/whole/$file" "$folder/run/$file" || complain "killed $kills times: $file differs in the end"
done
echo "seed $seed: $kills kills in one run of $steps steps, $left in the middle of a save, $((bad - before)) bad"
[ $bad -eq 0 ]
