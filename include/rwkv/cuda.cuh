#pragma once
/// Everything, with the CUDA backend; for .cu files.
#if !defined(__CUDACC__) && !defined(RWKV_SIMT)
#error "rwkv: rwkv/cuda.cuh needs a CUDA compiler; a .cpp file holds a CUDA model behind rwkv::AnyModel"
#endif
#include "rwkv/backend/cuda.cuh"
#include "rwkv/backend/cuda/sample/sample.cuh"
#include "rwkv/rwkv.hpp"
