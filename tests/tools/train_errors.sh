#!/bin/sh
# What the training program refuses: one sentence on the error output, status 1, and the files of before stay.
#
#   train_errors.sh TRAIN FOLDER TEXT MODEL      MODEL has a vocabulary that is not that of bytes
set -u
train=$1
folder=$2
text=$3
model=$4
bad=0
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder" || exit 1
head -c 5000 "$text" > text
printf a > letter
: > nothing
common='--text text --depth 1 --width 16 --batch 2 --length 16 --steps 8 --warmup 2 --save-every 2 --evaluate-every 4'

# refuses SENTENCE COMMAND...
refuses() {
  sentence=$1
  shift
  "$@" > output 2> error
  status=$?
  echo "$(cat error)"
  if [ $status -ne 1 ]; then echo "BAD: status $status instead of 1: $*"; bad=$((bad + 1)); fi
  if [ "$(wc -l < error)" -ne 1 ]; then echo "BAD: not one line: $*"; bad=$((bad + 1)); fi
  if ! grep -q "^train: .*$sentence" error; then echo "BAD: nothing of '$sentence'"; bad=$((bad + 1)); fi
}
unchanged() {
  for file in "$@"; do
    cmp -s "$file" "$file.kept" || { echo "BAD: $file has changed"; bad=$((bad + 1)); }
  done
  for file in .rwkv*; do
    [ ! -e "$file" ] || { echo "BAD: $file is left"; bad=$((bad + 1)); }
  done
}

# Words within $common are options.
# shellcheck disable=SC2086
{
  refuses 'missing: cannot open the file' "$train" $common --text missing
  refuses 'nothing: the file is empty' "$train" $common --text nothing
  refuses 'letter: of its 1 tokens 0 would be held out' "$train" $common --text letter
  refuses 'letter: 1 token is too few for windows of 16 tokens' "$train" $common --text letter --held-out 0
  refuses 'text: 4500 tokens are too few for windows of 4500 tokens' "$train" $common --length 4500
  refuses 'text: 4500 tokens are too few for 300 streams' "$train" $common --streams --batch 300
  refuses "the model has a vocabulary of [0-9]* tokens; pass its vocabulary" "$train" --text text --from "$model"
  refuses "the model has a vocabulary of [0-9]* tokens; pass its vocabulary" "$train" --text text --evaluate "$model"
  refuses 'letter: 1 token is too few to predict any' \
    "$train" --text letter --evaluate "$(dirname "$text")/shakespeare-bf16.safetensors"
  refuses 'none.safetensors: cannot open the file' "$train" --text text --evaluate none.safetensors
  refuses "no parameter is named like 'nonsense'" "$train" $common --freeze nonsense
  refuses 'rate must be between zero and the peak' "$train" $common --final-rate 1
  # Where no file can be written is told before the run, which writes nothing.
  mkdir taken
  before=$(ls)
  for option in '--out' '--out m.safetensors --curve'; do
    refuses "none/m.safetensors: there is no folder 'none'" "$train" $common $option none/m.safetensors
    refuses "text/m.safetensors: there is no folder 'text'" "$train" $common $option text/m.safetensors
    for place in taken taken/ . ..; do
      refuses "$place: this is a folder, so no file can be written there" "$train" $common $option $place
    done
    [ ! -c /dev/full ] ||
      refuses '/dev/full: this is not a regular file, so it cannot be replaced' "$train" $common $option /dev/full
  done
  [ "$(ls)" = "$before" ] || { echo "BAD: files are left: $(ls)"; bad=$((bad + 1)); }
  # No machine has the memory, but one may promise it; under sanitizers a program cannot run within a limit.
  limited='ulimit -v 4000000; exec "$@"'
  if sh -c "$limited" sh "$train" --help > output 2>&1; then
    refuses 'there is not enough memory' sh -c "$limited" sh "$train" $common --width 65536 --depth 1024
  fi
  refuses 'm.run.safetensors: there is no such file, so no run to go on with' \
    "$train" $common --out m.safetensors --resume

  for ending in pth pt bin gguf ckpt; do
    refuses "m.$ending: the model is written as .safetensors" "$train" $common --out m.$ending
  done

  # A file under another name, and the picture of the curve.
  ln -s letter link
  refuses 'letter: the run would write over this file' "$train" --text link --out letter
  cp text picture.svg
  refuses 'picture.svg: the run would write over this file' "$train" $common --text picture.svg --out picture.safetensors
  refuses 'h.svg: the run would write over this file' "$train" $common --out h.safetensors --curve h.svg

  # One run for each model, whatever its name.
  for out in a-0.1 a-0.2 b.v1 b.v2 .c; do
    "$train" $common --out $out > output || { echo "BAD: the run of $out fails"; bad=$((bad + 1)); }
    for file in $out $out.run.safetensors $out.csv; do
      [ -s $file ] || { echo "BAD: no $file"; bad=$((bad + 1)); }
    done
  done
  refuses "a-0.3.run.safetensors: there is no such file" "$train" $common --out a-0.3 --resume
  refuses "b.v1.run.safetensors: this is the run of the model 'b.v1'" "$train" $common --out b.v1.safetensors
  refuses 'other settings: model is' "$train" $common --out b.v1.safetensors --resume

  # What lies there already.
  "$train" $common --out m.safetensors > output || { echo 'BAD: the run fails'; bad=$((bad + 1)); }
  for file in m.safetensors m.run.safetensors; do cp $file $file.kept; done
  refuses 'other settings: rate is' "$train" $common --out m.safetensors --resume --rate 0.1
  refuses "rate is '.*, decay cosine' there and '.*, decay linear' here" \
    "$train" $common --out m.safetensors --resume --decay linear
  refuses "trained is 'the parameters, average 0.998' there and 'the parameters' here" \
    "$train" $common --out m.safetensors --resume --average 0
  refuses "trained is 'the parameters, average 0.998' there and 'the parameters, without 'emb.\*', average 0.998' here" \
    "$train" $common --out m.safetensors --resume --freeze 'emb.*'
  refuses '--resume: --evaluate trains nothing' "$train" --text text --evaluate m.safetensors --resume
  refuses 'goes on with the settings it began with' "$train" $common --out m.safetensors --resume --steps 100
  refuses 'other settings: batches is' "$train" $common --out m.safetensors --resume --seed 3
  refuses 'other settings: text is' "$train" $common --out m.safetensors --resume --text "$text"
  refuses 'file has \[256, 16\], the run expects \[256, 32\]' "$train" $common --out m.safetensors --resume --width 32
  refuses 'training step [0-9]*: the loss is .*; .* is the first' "$train" $common --out m.safetensors --rate 1e9
  unchanged m.safetensors
  cp m.run.safetensors.kept m.run.safetensors
  # A full disk, as far as a limit on the size of files is one.
  refuses 'm.run.safetensors: cannot write the file' \
    sh -c "trap '' 25; ulimit -f 8; exec \"\$@\"" sh "$train" $common --out m.safetensors
  unchanged m.safetensors m.run.safetensors

  for place in 100 5000 60000 100000; do
    cp m.run.safetensors.kept m.run.safetensors
    printf '\125' | dd of=m.run.safetensors bs=1 seek=$place conv=notrunc 2> dd
    refuses 'm.run.safetensors: ' "$train" $common --out m.safetensors --resume
  done
  head -c 60000 m.run.safetensors.kept > m.run.safetensors
  refuses 'm.run.safetensors: ' "$train" $common --out m.safetensors --resume
  unchanged m.safetensors
}
echo "$bad bad"
[ $bad -eq 0 ]
