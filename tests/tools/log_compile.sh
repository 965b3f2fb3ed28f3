#!/bin/sh
# A launcher for compilers: runs the command and adds "seconds kilobytes object" to the file that RWKV_COMPILE_LOG names.
#
#   RWKV_COMPILE_LOG=log CMAKE_CXX_COMPILER_LAUNCHER=log_compile.sh cmake ...
if [ -z "${RWKV_COMPILE_LOG:-}" ] || [ ! -x /usr/bin/time ]; then exec "$@"; fi
object=
previous=
for argument in "$@"; do
  [ "$previous" != -o ] || object=$argument
  previous=$argument
done
exec /usr/bin/time -a -o "$RWKV_COMPILE_LOG" -f "%U %M ${object:--}" "$@"
