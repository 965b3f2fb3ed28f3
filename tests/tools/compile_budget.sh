#!/usr/bin/env bash
# Holds what it costs users to compile the library, and what it costs to compile its tests, to a budget: user CPU seconds at
# -O2 above those of the header alone, with half as much again of slack.
#
#   compile_budget.sh g++ [LOG]
#
# LOG: a line for every test unit, "seconds kilobytes object", as log_compile.sh leaves it.
set -euo pipefail
compiler=$1
log=${2:-}
tree=$(cd "$(dirname "$0")/../.." && pwd)
REPETITIONS=2
. "$tree/benchmarks/compile_time/measure.sh"
object=$(mktemp)
trap 'rm -f "$object"' EXIT

# Beside other work a compiler waits for a core, and where it does, caches and clocks are shared and user seconds grow.
wait_for_core() {
  local TIMEFORMAT='%R %U %S'
  { time compile "$compiler" "$tree" include_blocks "$object"; } 2>&1 | awk '{exit !($1 > 1.2 * ($2 + $3))}'
}
if wait_for_core; then
  echo "skipped: other work takes the time of a compiler, so its seconds would count too much"
  exit 0
fi

failed=0
# hold WHAT SECONDS BUDGET
hold() {
  echo "$1: $2 s, budget $3 s"
  if awk "BEGIN {exit !($2 > 1.5 * $3)}"; then
    echo "  too much: beyond the budget and its slack of half as much again"
    failed=1
  fi
}
cost() {
  compile "$compiler" "$tree" "$1" "$object"  # with its errors, if it does not compile
  for repetition in $(seq "$REPETITIONS"); do user_seconds compile "$compiler" "$tree" "$1" "$object"; done | least
}
above() { awk "BEGIN {printf \"%.2f\", $1 - $2}"; }

blocks=$(cost include_blocks)
hold "rwkv/blocks.hpp" "$blocks" 2.1
hold "rwkv/rwkv.hpp" "$(cost include_rwkv)" 4
hold "a row cell's recur above blocks.hpp" "$(above "$(cost recur_wkv7)" "$blocks")" 1
hold "a model forward above blocks.hpp" "$(above "$(cost one_model)" "$blocks")" 5
hold "a model with its gradient above blocks.hpp" "$(above "$(cost one_model_backward)" "$blocks")" 10

if [ -n "$log" ] && [ -s "$log" ]; then
  # Of an object compiled twice the last line counts.
  units=$(awk '{seconds[$3] = $1; memory[$3] = $2} END {for (unit in seconds) print seconds[unit], memory[unit], unit}' "$log" |
    grep -E ' tests/' || true)
  [ -n "$units" ] || { echo "$log names no test unit"; exit 1; }
  echo "$(echo "$units" | wc -l) test units; the dearest: $(echo "$units" | sort -n | tail -n 1)"
  over=$(echo "$units" | awk '$1 > 1.5 * 15 || $2 > 1.5 * 1048576 {print "  " $1 " s, " int($2 / 1024) " MB: " $3}')
  if [ -n "$over" ]; then
    printf 'test units beyond 15 s or 1 GB and their slack:\n%s\n' "$over"
    failed=1
  fi
else
  echo "no log of the build, so test units are not looked at"
fi
exit $failed
