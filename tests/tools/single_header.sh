#!/bin/sh
# Makes one header of the building blocks, io and text, for projects that want a single file; with --train, of training too.
# Eigen and nlohmann/json stay outside.
#
#   single_header.sh INCLUDE [--train] > rwkv_single.hpp
set -eu
include=$1
left_out='rwkv/train/'
[ "${2:-}" != --train ] || left_out='none'
[ -f "$include/rwkv/rwkv.hpp" ] || { echo "single_header.sh: there is no rwkv/rwkv.hpp in '$include'" >&2; exit 1; }
# What an #include of ours names takes its place, once, as the preprocessor would do it.
awk -v include="$include" -v left_out="$left_out" '
  # The headers that the bodies of a header need: before the condition under which the bodies stand.
  function hoist(name,    file, line, parts) {
    file = include "/" name
    while ((getline line < file) > 0) {
      if (line !~ /^#include "rwkv\//) continue
      split(line, parts, "\"")
      if (parts[2] ~ /\.hpp$/) expand(parts[2])
    }
    close(file)
  }
  function expand(name,    file, line, parts, found, held, bodies, i) {
    if (name in done || index(name, left_out) == 1) return
    done[name] = 1
    print "// " name
    file = include "/" name
    while ((found = (getline line < file)) > 0) {
      split(line, parts, "\"")
      if (line ~ /^#ifndef RWKV_COMPILED/) held = 1
      else if (held && line ~ /^#include "rwkv\/.*\.ipp"/) {
        hoist(parts[2])
        bodies[held++] = parts[2]
        continue
      } else if (held && line ~ /^#endif/) {
        print "#ifndef RWKV_COMPILED"
        for (i = 1; i < held; ++i) expand(bodies[i])
        held = 0
      }
      if (held == 1 && line ~ /^#ifndef/) continue
      if (line ~ /^[ \t]*#[ \t]*include[ \t]+"rwkv\//) expand(parts[2])
      else if (line !~ /^#pragma once/) print line
    }
    if (found < 0) {
      print "single_header.sh: cannot read " file > "/dev/stderr"
      exit 1
    }
    close(file)
  }
  BEGIN {
    while ((getline line < (include "/../LICENSE")) > 0) print line == "" ? "//" : "// " line
    print "#pragma once"
    expand("rwkv/rwkv.hpp")
  }'
