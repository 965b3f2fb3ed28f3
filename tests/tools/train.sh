#!/bin/sh
# A few steps of training, in each of its ways; then the files must be there.
#
#   train.sh TRAIN FOLDER TEXT
set -u
train=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
head -c 8000 "$3" > "$folder/text"
cd "$folder" || exit 1

run() {  # run NAME OPTIONS...
  name=$1
  shift
  "$train" --text text --out "$name.safetensors" --batch 2 --length 16 --steps 6 --warmup 2 --evaluate-every 3 "$@" ||
    { echo "BAD: $name: status $?"; return; }
  for file in "$name.safetensors" "$name.csv" "$name.run.safetensors"; do
    [ -s "$file" ] || echo "BAD: no $file"
  done
  [ "$(wc -l < "$name.csv")" -eq 7 ] || echo "BAD: the curve has $(wc -l < "$name.csv") lines"
  case $(command -v gnuplot) in
    '') echo "skipped: the plot of $name: gnuplot is not installed" ;;
    *) grep -q '</svg>' "$name.svg" || echo "BAD: no plot of $name" ;;
  esac
}
same() { cmp "$1.safetensors" "$2.safetensors" || echo "BAD: $1 and $2 differ"; }

small='--depth 2 --width 16'
# Words within $small are options.
# shellcheck disable=SC2086
{
  run plain $small
  run recompute $small --recompute
  same plain recompute
  run streams $small --streams --ffn 24 --decay linear --weight-decay 0 --average 0
  run frozen $small --freeze '{emb,head}.*' --decay exponential --patience 1 --seed 3
  run whole $small --held-out 0 --decay constant --clip 0.5
  run parts $small --accumulate 2 --batch 1
  run further --from plain.safetensors
  run factors --from plain.safetensors --lora 'blocks.*.att.key.weight' --rank 2 --alpha 4
  run miss --from plain.safetensors --miss 'blocks.*.att.key.weight' --rank 2 --average 0
  run state --from plain.safetensors --tune-state --rate 0.1
}

# Factors apart from the model do what they do in it, and a state makes a difference.
loss() { "$train" --text text "$@" | sed -n 's/^loss //p'; }
near() { awk "BEGIN { d = $1 - $2; exit !(d * d < 1e-4) }"; }
plain=$(loss --evaluate plain.safetensors)
for name in factors miss; do
  merged=$(loss --evaluate $name.safetensors)
  apart=$(loss --evaluate plain.safetensors --adapter $name.adapter.safetensors)
  near "$merged" "$apart" || echo "BAD: $name: loss $merged in the model, $apart apart from it"
  [ "$apart" != "$plain" ] || echo "BAD: $name changes nothing"
done
empty=$(loss --evaluate plain.safetensors --window 16)
tuned=$(loss --evaluate plain.safetensors --window 16 --state state.safetensors)
[ -n "$tuned" ] && [ "$empty" != "$tuned" ] || echo "BAD: the state changes nothing: $empty"
