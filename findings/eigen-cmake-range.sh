#!/usr/bin/env bash
# Package:  Eigen 3.4.0 and 3.4.1 (cmeel-eigen), with CMake 3.31.6
# Happens:  find_package(Eigen3 3.4...5), which says "3.4 up to 5", finds Eigen 3.4.1 and refuses 3.4.0, the lower end
#           of the range. find_package(Eigen3 3.4) finds both.
# Expected: 3.4.0 lies in the range. The range is the way to accept Eigen 5, which the plain 3.4 refuses (see the
#           reports below); so no single call with a version takes both 5.0 and 3.4.0, which many Linux distributions
#           have.
# Source:   Eigen3ConfigVersion.cmake of 3.4.0 is CMake's SameMajorVersion: "both endpoints of the range must have the
#           expected major version"; 3.4.1 ships a file of its own, with "3...5 matches 3.0.0.0 to <6.0.0.0" among its
#           comments. Projects that met it with Eigen 5: https://github.com/yixuan/LBFGSpp/pull/48,
#           https://github.com/strasdat/Sophus/pull/558, https://github.com/softwareQinc/qpp/issues/191.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v make >/dev/null || { echo "skipped: needs make"; exit 77; }
{
  for version in 3.4.0 3.4.1; do
    python3 -m venv "$work/$version" &&
      "$work/$version/bin/pip" install -q --no-deps "cmeel-eigen==$version" cmake==3.31.6 || exit 2
  done
} >&2
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.19)
project(check LANGUAGES NONE)
find_package(Eigen3 ${asked} NO_MODULE QUIET PATHS ${where} NO_DEFAULT_PATH)
message(STATUS "answer: ${Eigen3_FOUND}")
EOF
seen=
for asked in 3.4 3.4...5; do
  for version in 3.4.0 3.4.1; do
    config=$(echo "$work/$version"/lib/python3*/site-packages/cmeel.prefix/share/eigen3/cmake)
    found=$("$work/$version/bin/cmake" -S "$work/project" -B "$work/build-$asked-$version" -Dasked="$asked" \
      -Dwhere="$config" | sed -n 's/^-- answer: //p')
    echo "find_package(Eigen3 $asked) with Eigen $version: found $found"
    seen+="$found "
  done
done
[ "$seen" = "1 1 0 1 " ] || { echo "the behaviour has changed"; exit 1; }
