#!/bin/sh
# Kills a training run at every one of its file calls, goes on with what lies there and compares the outcome, byte for
# byte, with that of a run that nobody disturbed. Then lets file calls fail, one at a time.
#
#   kill_points.sh PROGRAM FOLDER
set -u
program=$1
folder=$2
calls='open|openat|write|fsync|fdatasync|rename|renameat|renameat2|close|unlink|unlinkat|fchmod'
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
  for file in run.safetensors final.safetensors; do
    cmp -s "$folder/whole/$file" "$folder/run/$file" || complain "$1: $file differs in the end"
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
for fault in ENOSPC EIO EINTR; do
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
      for file in "$folder"/run/.[!.]*; do
        [ ! -e "$file" ] || complain "$fault at $call $n: $file is left"
      done
      finish "$fault at $call $n"
      n=$((n + 1))
    done
  done << END
$counts
END
  echo "$fault: $errors faults, $resumes resumes, $((bad - before)) bad"
done
[ $bad -eq 0 ]
