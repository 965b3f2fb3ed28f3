// A backend that multiplies with cuBLASLt, loaded at run time: it compiles, needs no library, and says what it lacks.
#define RWKV_CUBLASLT_AT_RUN_TIME
#include <rwkv/backend/cuda.cuh>
#include <rwkv/cuda_cublaslt.cuh>

#include <iostream>

int main() {
  try {
    rwkv::BasicCuda<rwkv::CublasLtGemm> be;
    float* const numbers = be.allocate<float>(3 * 64 * 64);
    const auto square = [&](int nth) { return rwkv::matrix(numbers + nth * 64 * 64, 64, 64); };
    for (int i = 0; i < 3; ++i) be.fill(square(i), 1.0f);
    be.gemm(rwkv::mul(square(2), square(0), rwkv::transposed(square(1))));
    be.sync();
    be.free(numbers);
  } catch (const rwkv::Error& error) {
    std::cout << error.what() << '\n';  // without a GPU
  }
}
