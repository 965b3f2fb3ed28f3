# For scripts that source this: what it costs to compile a program.
#
#   EIGEN        Eigen's include folder
#   REPETITIONS  of every measurement, of which the least counts; three unless set
eigen=${EIGEN:-/usr/include/eigen3}
repetitions=${REPETITIONS:-3}

# compile COMPILER TREE PROGRAM OBJECT FLAGS...: one of the fixed programs, or the example `generate`, with the headers of a
# tree; optimised as for users.
compile() {
  local compiler=$1 tree=$2 program=$3 object=$4 source
  shift 4
  source=$(dirname "${BASH_SOURCE[0]}")/$program.cpp
  [ "$program" != generate ] || source=$tree/examples/01_generate/main.cpp
  "$compiler" -std=c++20 -O2 -DNDEBUG '-DRWKV_EXAMPLE_MODEL=""' "$@" "-I$tree/include" -isystem "$eigen" -c "$source" -o "$object"
}

# user_seconds COMMAND...: CPU seconds in user mode.
user_seconds() {
  local TIMEFORMAT=%U
  { time "$@" > /dev/null 2>&1; } 2>&1
}
least() { sort -n | head -n 1; }
