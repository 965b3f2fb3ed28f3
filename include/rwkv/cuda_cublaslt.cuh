#pragma once
/// CublasLtGemm: matrix products of the CUDA backend by cuBLASLt. Link cublasLt, or define RWKV_CUBLASLT_AT_RUN_TIME
/// before the first include of this header in every source file and link nothing (but dl where libc is older than
/// 2.34).
#include "rwkv/backend/cuda/product/gemm_cublaslt.cuh"
