#!/bin/sh
# A study that Ctrl-C ends and the same command continues has the rows, byte for byte, of one that was left alone; finished,
# it runs nothing again; and it does not mix with other settings.
#
#   study.sh STUDY FOLDER
set -u
program=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder" || exit 1

fail() {
  echo "BAD: $*"
  exit 1
}

"$program" --smoke whole > output || fail "the study ends with status $?"
[ -s whole.md ] || fail "there is no report"
if gnuplot --version > /dev/null 2>&1; then grep -q '</svg>' whole.svg || fail "there is no picture"; fi

# Stops it several times, in whatever it does.
interrupted=0
for lines in 2 6 12 20; do
  "$program" --smoke parts --threads 1 >> output &
  process=$!
  until [ -s parts.csv ] && [ "$(wc -l < parts.csv)" -gt $lines ]; do
    kill -0 $process 2> /dev/null || break
    sleep 0.02
  done
  kill -INT $process 2> /dev/null
  wait $process
  status=$?
  [ $status -eq 130 ] || [ $status -eq 0 ] || fail "status $status after SIGINT"
  [ $status -eq 0 ] || interrupted=$((interrupted + 1))
done
[ $interrupted -gt 0 ] || fail "it was never interrupted"
grep 'goes on after step' output
"$program" --smoke parts > output || fail "the study does not go on"
cmp parts.csv whole.csv || fail "the rows differ"
[ ! -e parts.run.safetensors ] || fail "a run is left"

touch -d '2000-01-01' parts.csv
"$program" --smoke parts > output || fail "a finished study ends with status $?"
[ -z "$(find parts.csv -newermt '2001-01-01')" ] || fail "a finished study runs again"
if "$program" --smoke parts --seed 2 > output 2> error; then fail "another study goes on with the rows"; fi
grep -q 'parts.csv: these are not the rows' error || fail "$(cat error)"
echo "all equal"
