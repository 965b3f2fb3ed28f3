/// The square products by cuBLASLt, in programs that are linked with it.
#include "products.cuh"

#include <map>

#ifdef RWKV_BENCH_CUBLASLT
#include "rwkv/cuda_cublaslt.cuh"
#endif

namespace bench {

std::map<std::string, double> add_cublaslt(Suite& suite) {
  std::map<std::string, double> seconds;
#ifdef RWKV_BENCH_CUBLASLT
  static_cast<void>(suite);
#else
  static_cast<void>(suite);
#endif
  return seconds;
}

}  // namespace bench
