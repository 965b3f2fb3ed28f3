#!/bin/sh
# The options of the examples: what they refuse, in one sentence and with status 1, and what they take.
#
#   options.sh GENERATE LOGITS TRAIN
set -u
generate=$1
logits=$2
train=$3
bad=0
complain() {
  echo "BAD: $*"
  bad=$((bad + 1))
}

# refuses SENTENCE PROGRAM OPTIONS...
refuses() {
  sentence=$1
  shift
  error=$("$@" 2>&1 > /dev/null)
  status=$?
  printf '%s\n' "$error"
  [ $status -eq 1 ] || complain "status $status instead of 1: $*"
  [ "$error" = "$(basename "$1"): $sentence" ] || complain "not '$sentence'"
}
# takes PROGRAM OPTIONS...: another option is refused then.
takes() {
  refuses 'there is no option --end' "$@" --end
}

seeds='no whole number from 0 to 18446744073709551615'
indices='from 0 to 9223372036854775807'
for wrong in -1 18446744073709551616 010 1e3 ' 5' '5 ' 5x '' +5 0x10 5.0 -0 1,000; do
  refuses "--seed: '$wrong' is $seeds" "$generate" --seed "$wrong"
  refuses "--seed: '$wrong' is $seeds" "$train" "--seed=$wrong"
done
refuses "--tokens: '-1' is no whole number $indices" "$generate" --tokens -1
refuses "--tokens: '9223372036854775808' is no whole number $indices" "$generate" --tokens 9223372036854775808
refuses "--top-k: '2147483648' is no whole number from 0 to 2147483647" "$generate" --top-k 2147483648
refuses "--depth: '0' is no whole number from 1 to 1024" "$train" --depth 0
# Sizes that no memory holds.
for size in depth:1:1024 width:1:65536 ffn:0:262144 batch:1:4096 length:1:65536 accumulate:1:65536 rank:1:65536; do
  name=${size%%:*}
  most=${size##*:}
  least=${size#*:}
  least=${least%:*}
  for wrong in $((most + 1)) 9223372036854775807; do
    refuses "--$name: '$wrong' is no whole number from $least to $most" "$train" "--$name" "$wrong"
  done
  takes "$train" "--$name" "$most"
done
for program in "$generate" "$logits" "$train"; do
  for wrong in 0 1025; do
    refuses "--threads: '$wrong' is no whole number from 1 to 1024" "$program" --threads $wrong
  done
done
for wrong in inf nan 1e999 0x1p3 ' 1' 1,5 1x '' +1; do
  refuses "--temperature: '$wrong' is no finite decimal number of at least 0" "$generate" --temperature "$wrong"
done
refuses "--top-p: '7' is no finite decimal number from 0 to 1" "$generate" --top-p 7
refuses '--system: this is for --chat' "$generate" --system Hello
refuses '--prompt: --chat reads its turns from the input' "$generate" --chat world --prompt Hello
refuses "--held-out: '1.5' is no finite decimal number from 0 to 1" "$train" --held-out 1.5
for wrong in '' 1, ,1 1,,2 '1, 2' 1,-2 01; do
  part=$(echo "$wrong" | tr ',' '\n' | grep -vx '[12]' | head -n 1)
  refuses "--ids $wrong: '$part' is no whole number from 0 to 2147483647" "$logits" --ids "$wrong"
done
refuses "--mode: 'steps' is none of step, sequence" "$logits" --mode steps
refuses "--decay: 'cos' is none of cosine, linear, exponential, constant" "$train" --decay cos

refuses "--seed: '5\\nx' is $seeds" "$generate" --seed "5
x"
refuses '--seed: the value is missing' "$generate" --seed
refuses '--out: the value is missing before --resume' "$train" --out --resume
refuses 'there is no option --unknown' "$train" --unknown 3
refuses 'there is no option --see' "$train" --see 3
refuses 'there is no option --resume=yes' "$train" --resume=yes
refuses 'there is no option -x' "$train" -x
refuses "'text' belongs to no option" "$train" text
refuses "'second' belongs to no option" "$generate" first second
refuses 'MODEL is missing' "$logits" --out none --ids 1
refuses '--out is missing' "$logits" none --ids 1
refuses 'give one of --ids and --prompt' "$logits" none --out none
refuses 'give one of --ids and --prompt' "$logits" none --out none --ids 1 --prompt a
# An empty value is none: without it the program would do something else.
for name in text out vocab from freeze lora miss curve evaluate adapter state; do
  refuses "--$name: the value is empty" "$train" --$name=
  refuses "--$name: the value is empty" "$train" --$name ''
done
for name in vocab ignore adapter state; do refuses "--$name: the value is empty" "$generate" --$name=; done
for name in vocab out; do refuses "--$name: the value is empty" "$logits" --$name=; done
for program in "$generate" "$logits"; do refuses 'MODEL: the value is empty' "$program" ''; done
takes "$logits" --prompt=

# Training options beside --evaluate.
for unused in '--held-out 0.5' '--steps 3' '--from a' '--out a' '--curve a' --resume --streams --recompute; do
  # shellcheck disable=SC2086
  refuses "${unused%% *}: --evaluate trains nothing, so it does not use this option" "$train" $unused --evaluate none
done
for alone in --adapter --state; do refuses "$alone: this is for --evaluate" "$train" $alone none; done
refuses '--alpha: there is no --adapter that it belongs to' "$train" --evaluate none --alpha 3
refuses '--tune-state: pass the model whose state is tuned by --from' "$train" --tune-state
refuses 'none: cannot open the file: No such file or directory' "$train" --evaluate none --threads 1 --text none

# What logits writes is nothing that it reads, under whatever name, and goes where a file can be.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
over='the logits would be written over this file; pass another --out'
place=$(pwd)
case $logits in /*) ;; *) logits=$place/$logits ;; esac
cd "$folder" || exit 1
echo model > m
ln -s m link
ln m twin
mkdir inside
for out in m ./m inside/../m "$folder/m" link twin; do
  refuses "$out: $over" "$logits" m --ids 1,2 --out "$out"
  refuses "$out: $over" "$logits" other --prompt a --vocab m --out "$out"
done
refuses 'inside: this is a folder, so no file can be written there' "$logits" m --ids 1 --out inside
refuses "none/l: there is no folder 'none'" "$logits" m --ids 1 --out none/l
[ ! -c /dev/full ] ||
  refuses '/dev/full: this is not a regular file, so it cannot be replaced' "$logits" m --ids 1 --out /dev/full
[ "$(cat m)" = model ] || complain 'the model has changed'
[ "$(ls | tr '\n' ' ')" = 'inside link m twin ' ] || complain "files are left: $(ls)"
cd "$place" || exit 1

refuses '--depth: the checkpoint of --from has its own' "$train" --from none --depth 2

takes "$generate" model --ignore 'a.{b,**}' --prompt=--text --prompt '' --tokens 0 --seed 18446744073709551615 --top-k=2147483647
takes "$train" --rate 1e-3 --rate .5 --held-out 1 --clip -2.5 --streams
takes "$logits" --ids 0,2147483647 --scalar double
refuses "'--second' belongs to no option" "$logits" --ids 1 -- --model --second

for program in "$generate" "$logits" "$train"; do
  for help in --help -h; do
    "$program" $help | grep -q '^Usage: ' || complain "$program: no help"
    "$program" $help > /dev/null || complain "$program: help ends with status $?"
  done
done
"$train" --help | grep -q -- '--rate \[0.003\] *peak learning rate' || complain "no default in the help"
echo "$bad bad"
[ $bad -eq 0 ]
