#!/bin/sh
# Output that does not arrive is an error: one sentence and status 1.
#
#   full_disk.sh PROGRAM ARGUMENTS...
set -u
[ -c /dev/full ] || { echo "skipped: there is no /dev/full"; exit 0; }
error=$(mktemp)
trap 'rm -f "$error"' EXIT
"$@" > /dev/full 2> "$error"
status=$?
cat "$error"
[ $status -eq 1 ] || { echo "BAD: status $status instead of 1"; exit 1; }
grep -q 'the output could not be written' "$error" || { echo "BAD: no sentence about the output"; exit 1; }
