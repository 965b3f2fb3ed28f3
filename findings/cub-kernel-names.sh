#!/usr/bin/env bash
# Package:  CUB 3.0.1 (nvidia-cuda-cccl 13.0.85) with nvcc 13.0.88
# Happens:  The mangled name of a kernel that has a CUB type among its template arguments names every architecture of
#           the compilation: CUB_300001_SM_800 for -arch=sm_80, CUB_300001_SM_800_900 for a binary of two. Its sm_80
#           code is then known by two names.
# Expected: One source, one compiler, one name. Profiles, register tables and launch bounds kept by the name of the
#           kernel lose it when an architecture joins the list; two libraries built for different lists share none of
#           it.
# Source:   cub/util_namespace.cuh puts NV_TARGET_SM_INTEGER_LIST into an inline namespace. It is on purpose:
#           https://nvidia.github.io/cccl/cub/developer/visibility.html ("Incorporating GPU architectures into symbol
#           names").
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in g++ nm; do
  command -v "$tool" >/dev/null || { echo "skipped: needs $tool"; exit 77; }
done
{
  python3 -m venv "$work/venv" &&
    "$work/venv/bin/pip" install -q nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
      nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
} >&2 || exit 2
cuda=$(echo "$work"/venv/lib/python3*/site-packages/nvidia/cu13)
cat >"$work/total.cu" <<'EOF'
#include <cub/block/block_reduce.cuh>

template <class Reduce>
__global__ void total(float* x) {
  __shared__ typename Reduce::TempStorage room;
  const float sum = Reduce(room).Sum(x[threadIdx.x]);
  if (threadIdx.x == 0) x[0] = sum;
}

template __global__ void total<cub::BlockReduce<float, 128>>(float*);
EOF
seen=
for architectures in 80 90 "80 90"; do
  options=()
  for a in $architectures; do options+=("-gencode=arch=compute_$a,code=sm_$a"); done
  "$cuda/bin/nvcc" "${options[@]}" -I "$cuda/include/cccl" -c "$work/total.cu" -o "$work/total.o"
  name=$(nm "$work/total.o" | awk '$3 ~ /^_Z5total/ { print $3 }')
  echo "sm $architectures: $name"
  seen+="$(grep -oE 'SM_[0-9]{3}(_[0-9]{3})?' <<<"$name" | head -1) "
done
[ "$seen" = "SM_800 SM_900 SM_800_900 " ] || { echo "the behaviour has changed"; exit 1; }
