#!/usr/bin/env bash
# Package:  nvcc 13.0.88 (nvidia-cuda-nvcc 13.0.88) with the g++ of the machine, 12 in the case seen
# Happens:  Of two __host__ __device__ friends of a class template that take `const auto&`, nvcc declares the first alone. It
#           warns that the attributes do not apply to the second (#1835-D), and a call of it is an undefined identifier; it
#           does not matter which function is the second. g++ alone takes the source.
# Expected: Both are there: a function with an `auto` parameter is a function template, and the same friends written with
#           `template <class U>` and `const U&` are.
# Source:   C++20 [dcl.fct]: an abbreviated function template is equivalent to one whose template parameters are written out.
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
cat >"$work/friends.cu" <<'EOF'
#ifdef WRITTEN_OUT
#define TEMPLATE template <class U>
#define ANY const U&
#else
#define TEMPLATE
#define ANY const auto&
#endif
template <class T>
struct Number {
#ifdef ONE
  TEMPLATE __host__ __device__ friend bool more(Number, ANY) { return false; }
#elif defined(SWAPPED)
  TEMPLATE __host__ __device__ friend bool more(Number, ANY) { return false; }
  TEMPLATE __host__ __device__ friend bool less(Number, ANY) { return true; }
#else
  TEMPLATE __host__ __device__ friend bool less(Number, ANY) { return true; }
  TEMPLATE __host__ __device__ friend bool more(Number, ANY) { return false; }
#endif
};
__global__ void kernel(bool* out) { *out = CALLED(Number<double>(), 1); }
int main() { return CALLED(Number<double>(), 1) ? 0 : 1; }
EOF
sed 's/__host__ __device__//; /__global__/d' "$work/friends.cu" >"$work/friends.cpp"
seen=
for how in "-DCALLED=less" "-DCALLED=more" "-DCALLED=less -DSWAPPED" "-DCALLED=more -DSWAPPED" "-DCALLED=more -DONE" \
  "-DCALLED=more -DWRITTEN_OUT"; do
  read -ra options <<<"$how"
  g++ -std=c++20 -fsyntax-only "${options[@]}" "$work/friends.cpp" && seen+="$how: g++ compiles, nvcc "
  if "$nvcc" -std=c++20 -arch=sm_90 "${options[@]}" -c "$work/friends.cu" -o "$work/friends.o" >"$work/log" 2>&1; then
    seen+="compiles"$'\n'
  else
    seen+=$(grep -o 'error: identifier.*' "$work/log" | head -n 1)$'\n'
  fi
done
echo "$seen"
[ "$seen" = '-DCALLED=less: g++ compiles, nvcc compiles
-DCALLED=more: g++ compiles, nvcc error: identifier "more" is undefined
-DCALLED=less -DSWAPPED: g++ compiles, nvcc error: identifier "less" is undefined
-DCALLED=more -DSWAPPED: g++ compiles, nvcc compiles
-DCALLED=more -DONE: g++ compiles, nvcc compiles
-DCALLED=more -DWRITTEN_OUT: g++ compiles, nvcc compiles
' ] || { echo "the behaviour has changed"; exit 1; }
