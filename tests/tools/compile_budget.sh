#!/usr/bin/env bash
# Holds what the library costs to compile, in user CPU seconds at -O2, to budgets with half as much again of slack, so that
# it cannot creep up; the slowest unit of the tests, which it finds in ninja's log and compiles again where it took longer
# than its budget there; and the memory of the one with the largest object, which it compiles again.
#
#   compile_budget.sh SOURCE BUILD COMPILER INCLUDE...
set -euo pipefail
source=$1 build=$2 compiler=$3
shift 3
includes=()
for folder in "$@"; do
  [ "$folder" = /usr/include ] || includes+=("-isystem" "$folder")
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# user_seconds COMMAND...: ends the script where other work disturbs the count.
user_seconds() {
  local TIMEFORMAT='%U %S %R' user system clock
  { time "$@" > "$work/log" 2>&1; } 2> "$work/seconds" || { cat "$work/log" >&2; exit 1; }
  read -r user system clock < "$work/seconds"
  if awk -v cpu="$user" -v kernel="$system" -v clock="$clock" 'BEGIN { exit !(clock > 1.5 * (cpu + kernel) + 0.5) }'; then
    echo "skipped: the machine is busy: $user s of CPU took $clock s" >&2
    exit 77
  fi
  echo "$user"
}
compile() { user_seconds "$compiler" -std=c++20 -O2 -DNDEBUG "${includes[@]}" -c "$1" -o "$work/object"; }

failed=0
hold() {  # hold WHAT SECONDS BUDGET
  local verdict=ok
  awk -v seconds="$2" -v budget="$3" 'BEGIN { exit !(seconds > 1.5 * budget) }' && { verdict="ABOVE THE BUDGET"; failed=1; }
  awk -v what="$1" -v seconds="$2" -v budget="$3" -v verdict="$verdict" \
    'BEGIN { printf "%-44s %6.2f s, budget %4.1f s: %s\n", what, seconds, budget, verdict }'
}
above() { awk -v all="$1" -v headers="$2" 'BEGIN { print (all > headers ? all - headers : 0) }'; }

programs=$source/benchmarks/compile_time
blocks=$(compile "$programs/include_blocks.cpp")
all=$(compile "$programs/include_rwkv.cpp")
forward=$(compile "$programs/one_model.cpp")
backward=$(compile "$programs/one_model_backward.cpp")
recurrence=$(compile "$programs/recur_wkv7.cpp")
hold "rwkv/blocks.hpp" "$blocks" 2.1
hold "rwkv/rwkv.hpp" "$all" 4
hold "a forward pass, above its headers" "$(above "$forward" "$blocks")" 5
hold "forward and backward, above the headers" "$(above "$backward" "$blocks")" 10
hold "the recurrence of a row cell, above the headers" "$(above "$recurrence" "$blocks")" 1

# again OBJECT: the command that compiles it, with its results elsewhere.
again() {
  ninja -C "$build" -t commands "$1" | tail -n 1 | sed "s#-o $1#-o $work/object#; s#-MF [^ ]*#-MF $work/depends#"
}

log=$build/.ninja_log
if [ -e "$log" ] && command -v ninja > /dev/null; then
  ninja -C "$build" -t cleandead > /dev/null  # objects of files that are gone
  slowest=$(awk -F'\t' '/^[0-9]/ && $4 ~ /^tests\/.*\.cpp\.o$/ && $4 !~ /odr/ { print $2 - $1, $4 }' "$log" | sort -g | tail -n 1 | cut -d' ' -f2)
  seconds=$(awk -F'\t' -v unit="$slowest" '$4 == unit { seconds = ($2 - $1) / 1000 } END { print seconds }' "$log")
  if awk -v seconds="$seconds" 'BEGIN { exit !(seconds > 1.5 * 15) }'; then  # on the clock, perhaps of a busy machine
    again "$slowest" > "$work/unit.sh"
    seconds=$(cd "$build" && user_seconds sh "$work/unit.sh")
  fi
  hold "$(basename "$slowest" .o), the slowest unit" "$seconds" 15

  units=$(awk -F'\t' '/^[0-9]/ && $4 ~ /^tests\/.*\.cpp\.o$/ && $4 !~ /odr/ { print $4 }' "$log" | sort -u)
  largest=$(cd "$build" && { ls -S $units 2> /dev/null || true; } | head -n 1)  # without those of targets not built yet
  again "$largest" > "$work/unit.sh"
  if (cd "$build" && ulimit -v $((1536 * 1024)) && sh "$work/unit.sh") > "$work/log" 2>&1; then
    echo "$(basename "$largest" .o), the largest object: its compiler ends within 1.5 GB, budget 1.0 GB: ok"
  else
    cat "$work/log"
    echo "$(basename "$largest" .o), the largest object: not compiled within 1.5 GB: ABOVE THE BUDGET"
    failed=1
  fi
else
  echo "skipped: the units of the tests (no log of ninja)"
fi
exit $failed
