#!/bin/sh
# Tries every way to get the library, each from an empty folder, and prints a table: ways.sh CTEST BUILD
set -u
ctest=$1
build=$2
text=$("$ctest" --test-dir "$build" -R '^consume\.' --no-tests=error 2>&1)
status=$?
echo "| way | result | seconds |"
echo "| --- | --- | --- |"
echo "$text" | awk '
  /^ *[0-9]+\/[0-9]+ Test +#/ {
    name = $0
    sub(/.*consume\./, "", name)
    sub(/ .*/, "", name)
    result = /Passed/ ? "works" : /Skipped/ ? "skipped" : "FAILS"
    print "| " name " | " result " | " $(NF - 1) " |"
  }'
exit $status
