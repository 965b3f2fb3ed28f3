#!/bin/sh
# A training run that is interrupted, by Ctrl-C or by force, and goes on must end with the losses and the model, byte
# for byte, of one that was left alone.
#
#   train_resume.sh TRAIN FOLDER TEXT
set -u
train=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
head -c 20000 "$3" > "$folder/text"
cd "$folder" || exit 1

run() {  # run NAME OPTIONS...
  name=$1
  shift
  set -- --text text --out "$name.safetensors" --depth 1 --width 16 --batch 2 --length 32 --steps 300 --warmup 5 \
    --rate 1e-2 --evaluate-every 50 --save-every 20 --streams --accumulate 2 "$@"
  if [ $background = yes ]; then exec "$train" "$@"; else "$train" "$@"; fi
}
background=no
fail() {
  echo "BAD: $*"
  exit 1
}

run whole > output || fail "the run ends with status $?"
for signal in INT TERM KILL; do
  (background=yes && run $signal > $signal.log) &
  process=$!
  # The curve is written with every save.
  until [ -s $signal.csv ] && [ "$(wc -l < $signal.csv)" -gt 25 ]; do sleep 0.02; done
  kill -$signal $process
  wait $process
  status=$?
  echo "SIG$signal: status $status after $(tail -n 1 $signal.csv | cut -d, -f1) steps"
  case $signal:$status in
    INT:130 | TERM:143 | KILL:137) ;;
    *) fail "status $status after SIG$signal" ;;
  esac
  if run $signal 2> error; then fail "a second run writes over the first"; fi
  run $signal --resume > output || fail "the run does not go on"
  cmp $signal.safetensors whole.safetensors || fail "the model differs"
  for name in $signal whole; do cut -d, -f1-4 $name.csv > $name.losses; done
  cmp $signal.losses whole.losses || fail "the losses differ"
done
# A run that has ended has nothing to do, and its file may be replaced.
run whole --resume > output || fail "the run that has ended does not end again"
cmp KILL.safetensors whole.safetensors || fail "the model has changed"
run whole --threads 1 > output || fail "a new run does not start"
cmp KILL.safetensors whole.safetensors || fail "one thread gives another model"
echo "all equal"
