#!/usr/bin/env bash
# Package:  nvcc 13.0.88 (nvidia-cuda-nvcc 13.0.88) with the g++ of the machine, 12 in the case seen
# Happens:  In a class template, `return {member};` from a function that returns an aggregate of one number becomes
#           `return (member);` in the host code that nvcc hands to g++, where the member is of a class that converts to the
#           number. g++ then refuses it, in a line that the source does not have; g++ alone takes the source.
# Expected: The braces stay: a return with a braced list initialises the aggregate by its element. With the type written
#           out, `return Program{member};`, they do.
# Source:   C++20 [stmt.return] and [dcl.init.list]. The CUDA Programming Guide, 5.3 "C++ Language Support", says that nvcc
#           supports all language features of the standards, but for the restrictions it lists:
#           https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/cpp-language-support.html
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || { echo "skipped: needs g++"; exit 77; }
{
  python3 -m venv "$work/venv" &&
    "$work/venv/bin/pip" install -q nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
      nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
} >&2 || exit 2
nvcc=$(echo "$work"/venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
cat >"$work/braces.cu" <<'EOF'
struct Size {
  long n = 7;
  constexpr operator long() const { return n; }
};
template <long N>
struct Sizes {
  Size heads{};
};
struct Program {
  long groups;
};
template <class S>
struct Block {
  S sizes;
  Program braces() const { return {sizes.heads}; }
  Program named() const { return Program{sizes.heads}; }
};
#ifdef BRACES
int main() { return Block<Sizes<1>>{}.braces().groups == 7 ? 0 : 1; }
#else
int main() { return Block<Sizes<1>>{}.named().groups == 7 ? 0 : 1; }
#endif
EOF
seen=
for how in -DBRACES -DNAMED; do
  g++ -std=c++20 -x c++ "$how" "$work/braces.cu" -o "$work/host" && "$work/host" && seen+="g++ $how: runs"$'\n'
  if "$nvcc" -std=c++20 -arch=sm_90 "$how" -c "$work/braces.cu" -o "$work/device.o" >"$work/log" 2>&1; then
    seen+="nvcc $how: compiles"$'\n'
  else
    seen+="nvcc $how: $(grep -o 'error: could not convert' "$work/log" | head -n 1)"$'\n'
  fi
done
"$nvcc" -std=c++20 -arch=sm_90 -DBRACES -cuda "$work/braces.cu" -o "$work/braces.ii" >/dev/null 2>&1 || true
seen+="nvcc writes: $(grep -o 'Program braces() const.*}' "$work/braces.ii" | head -n 1)"
echo "$seen"
[ "$seen" = 'g++ -DBRACES: runs
nvcc -DBRACES: error: could not convert
g++ -DNAMED: runs
nvcc -DNAMED: compiles
nvcc writes: Program braces() const { return ((sizes).heads); }' ] || { echo "the behaviour has changed"; exit 1; }
