/// The square products by cuBLASLt, called without the library, with the fastest of the algorithms that it proposes.
#include <map>

#include "products.cuh"

#ifdef RWKV_BENCH_CUBLASLT
#include <cublasLt.h>

namespace bench {

namespace {

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) rwkv::fail("cuBLASLt: ", cublasLtGetStatusString(status));
}

/// y = x w^T for x [rows, in], w [out, in] and y [rows, out], all of one type. To cuBLASLt, whose matrices lie column
/// after column, that is y^T = w x^T.
template <class T>
class LtProduct {
 public:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;
  static constexpr int most_algorithms = 8;

  LtProduct(Cuda be, const ProductShape& shape) : backend_(be), workspace_(be, workspace_bytes) {
    constexpr cudaDataType_t type = sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F;
    check(cublasLtCreate(&handle_));
    check(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transpose = CUBLAS_OP_T;
    check(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose));
    const auto in = static_cast<std::uint64_t>(shape.in), out = static_cast<std::uint64_t>(shape.out),
               rows = static_cast<std::uint64_t>(shape.rows);
    check(cublasLtMatrixLayoutCreate(&w_, type, in, out, shape.in));
    check(cublasLtMatrixLayoutCreate(&x_, type, in, rows, shape.in));
    check(cublasLtMatrixLayoutCreate(&y_, type, out, rows, shape.out));
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference));
    check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                               sizeof workspace_bytes));
    const cublasStatus_t found = cublasLtMatmulAlgoGetHeuristic(handle_, product_, w_, x_, y_, y_, preference,
                                                                most_algorithms, algorithms_, &count_);
    static_cast<void>(cublasLtMatmulPreferenceDestroy(preference));
    check(found);
  }
  LtProduct(const LtProduct&) = delete;
  LtProduct& operator=(const LtProduct&) = delete;
  ~LtProduct() {
    static_cast<void>(cublasLtMatrixLayoutDestroy(y_));
    static_cast<void>(cublasLtMatrixLayoutDestroy(x_));
    static_cast<void>(cublasLtMatrixLayoutDestroy(w_));
    static_cast<void>(cublasLtMatmulDescDestroy(product_));
    static_cast<void>(cublasLtDestroy(handle_));
  }

  void operator()(const T* x, const T* w, T* y) const {
    const float one = 1, zero = 0;
    check(cublasLtMatmul(handle_, product_, &one, w, w_, x, x_, &zero, y, y_, y, y_, &algorithms_[chosen_].algo,
                         workspace_.data(), workspace_bytes, backend_.stream().handle()));
  }

  /// Takes the fastest algorithm.
  void choose(const T* x, const T* w, T* y) {
    const StreamClock clock(backend_.stream());
    double least = 0;
    int best = 0;
    for (chosen_ = 0; chosen_ < count_; ++chosen_) {
      if (algorithms_[chosen_].state != CUBLAS_STATUS_SUCCESS) continue;
      const auto thrice = [&] {
        for (int i = 0; i < 3; ++i) (*this)(x, w, y);
      };
      thrice();
      const double seconds = clock(thrice);
      if (least == 0 || seconds < least) {
        least = seconds;
        best = chosen_;
      }
    }
    chosen_ = best;
  }

 private:
  Cuda backend_;
  rwkv::Memory<Cuda> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
  cublasLtMatmulHeuristicResult_t algorithms_[most_algorithms] = {};
  int count_ = 0, chosen_ = 0;
};

template <class T>
void square(Suite& suite, Index size, std::map<std::string, double>& found) {
  const ProductShape shape{size, size, size};
  const Case what{"cuBLASLt", shape.name(), number_name<T>(), work_of<T, T>(shape)};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const float range = std::sqrt(3.0f / static_cast<float>(size));
    const Numbers<T> x(be, size * size, -1, 1, 1, sets), y(be, size * size, -1, 1, 2, sets),
        w(be, size * size, -range, range, 3, sets);
    LtProduct<T> product(be, shape);
    product.choose(x.data(), w.data(), y.data());
    const auto seconds = suite.seconds_of(sets, [&](Index set) { product(x.data(set), w.data(set), y.data(set)); });
    suite.report(what, seconds);
    found[shape.name() + "/" + what.number] = median(seconds);
  });
}

}  // namespace

std::map<std::string, double> add_cublaslt(Suite& suite) {
  std::map<std::string, double> found;
  for (const Index size : {1024, 2048, 4096, 8192}) {
    if (suite.quick() && size != 4096) continue;
    square<rwkv::bf16>(suite, size, found);
    square<float>(suite, size, found);
  }
  return found;
}

}  // namespace bench

#else

namespace bench {
std::map<std::string, double> add_cublaslt(Suite&) { return {}; }
}  // namespace bench

#endif
