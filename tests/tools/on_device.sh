#!/bin/sh
# Runs a program that needs a GPU, in a folder of its own. Where there is none, it must say so in one line of its own and
# end with status 1.
#
#   on_device.sh FOLDER PROGRAM ARGUMENTS...
set -u
folder=$1
shift
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder" || exit 1
"$@" > out 2> err
status=$?
cat out err
[ $status -eq 0 ] && exit 0
lacking=': rwkv: (this machine has no CUDA driver|there is no CUDA device|the CUDA driver is too old)'
[ $status -eq 1 ] && [ "$(wc -l < err)" -eq 1 ] && grep -Eq "^[a-z]+$lacking" err && [ ! -e /dev/nvidia0 ] && exit 0
echo "BAD: status $status"
exit 1
