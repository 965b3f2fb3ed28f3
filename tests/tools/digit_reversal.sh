#!/bin/sh
# Briefly trained, the loss and the wrong digits fall; a run that Ctrl-C ends and the same command continues has the
# losses and the model, byte for byte, of one that was left alone.
#
#   digit_reversal.sh DIGIT_REVERSAL FOLDER
set -u
program=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder" || exit 1

train() {  # train NAME OPTIONS...
  name=$1
  shift
  exec "$program" --digits 2 --batch 16 --length 32 --steps 200 --check-every 10 --out "$name.safetensors" "$@"
}
fail() {
  echo "BAD: $*"
  exit 1
}

(train whole) || fail "the run ends with status $?"
awk -F, 'NR == 2 { loss = $3; wrong = $4 } END { exit !($3 < loss - 0.3 && $4 < wrong / 2) }' whole.csv ||
  fail "it does not learn"

(train parts --threads 1) > output &
process=$!
# The curve is written with every save.
until [ -s parts.csv ] && [ "$(wc -l < parts.csv)" -gt 4 ]; do
  kill -0 $process || fail "the run ended by itself"
  sleep 0.02
done
kill -INT $process
wait $process
status=$?
[ $status -eq 130 ] || fail "status $status after SIGINT"
if (train parts --seed 2) > output 2> error; then fail "another run goes on with the file"; fi
grep -q 'parts.run.safetensors: the run in the file' error || fail "$(cat error)"
(train parts) > output || fail "the run does not go on"
grep 'going on' output || fail "the run starts anew"
cmp parts.safetensors whole.safetensors || fail "the model differs"
for name in parts whole; do cut -d, -f1-4 $name.csv > $name.losses; done
cmp parts.losses whole.losses || fail "the losses differ"
touch other.csv
if (train other) > output 2> error; then fail "a file of another's is written over"; fi
grep -q 'other.csv: this file is there' error || fail "$(cat error)"
if (train whole.run) > output 2> error; then fail "a run file is written over"; fi
grep -q 'the name of the file of a run' error || fail "$(cat error)"
echo "all equal"
