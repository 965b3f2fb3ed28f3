/// Products by cuBLASLt: called directly with the fastest of the algorithms that it proposes, and through CublasLtGemm.
/// cuBLASLt is loaded when the first of these rows runs, so the program starts without it.
#include <chrono>
#include <map>

#include "products.cuh"

#if __has_include(<cublasLt.h>)
#define RWKV_CUBLASLT_AT_RUN_TIME
#include "rwkv/cuda_cublaslt.cuh"

namespace bench {

namespace {

using rwkv::gpu::CublasLt;

/// Which algorithm a product takes.
enum class Choice {
  fastest,    ///< of all that cuBLASLt proposes
  as_wrapper  ///< the first that it proposes under the demands of CublasLtGemm
};

/// y = x w^T for x [rows, in], w [out, in] and y [rows, out], all of one type. To cuBLASLt, whose matrices lie column
/// after column, that is y^T = w x^T.
template <class T>
class LtProduct {
 public:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;
  static constexpr int most_algorithms = 8;

  LtProduct(Cuda be, const ProductShape& shape, Choice choice) : backend_(be), workspace_(be, workspace_bytes) {
    constexpr cudaDataType_t type = sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F;
    lt_.check(lt_.create(&handle_), "create");
    lt_.check(lt_.create_operation(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "create_operation");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    lt_.check(lt_.set_operation(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose), "set_operation");
    const auto in = static_cast<std::uint64_t>(shape.in), out = static_cast<std::uint64_t>(shape.out),
               rows = static_cast<std::uint64_t>(shape.rows);
    lt_.check(lt_.create_layout(&w_, type, in, out, shape.in), "create_layout");
    lt_.check(lt_.create_layout(&x_, type, in, rows, shape.in), "create_layout");
    lt_.check(lt_.create_layout(&y_, type, out, rows, shape.out), "create_layout");
    cublasLtMatmulPreference_t preference = nullptr;
    lt_.check(lt_.create_preference(&preference), "create_preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      lt_.check(lt_.set_preference(preference, what, &value, sizeof value), "set_preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    if (choice == Choice::as_wrapper) {
      prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
      for (const auto alignment :
           {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
        prefer(alignment, std::uint32_t{16});
      }
    }
    const cublasStatus_t found = lt_.heuristic(handle_, product_, w_, x_, y_, y_, preference,
                                               choice == Choice::fastest ? most_algorithms : 1, algorithms_, &count_);
    static_cast<void>(lt_.destroy_preference(preference));
    lt_.check(found, "heuristic");
  }
  LtProduct(const LtProduct&) = delete;
  LtProduct& operator=(const LtProduct&) = delete;
  ~LtProduct() {
    static_cast<void>(lt_.destroy_layout(y_));
    static_cast<void>(lt_.destroy_layout(x_));
    static_cast<void>(lt_.destroy_layout(w_));
    static_cast<void>(lt_.destroy_operation(product_));
    static_cast<void>(lt_.destroy(handle_));
  }

  void operator()(const T* x, const T* w, T* y) const {
    const float one = 1, zero = 0;
    lt_.check(lt_.matmul(handle_, product_, &one, w, w_, x, x_, &zero, y, y_, y, y_, &algorithms_[chosen_].algo,
                         workspace_.data(), workspace_bytes, backend_.stream().handle()),
              "matmul");
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
  const CublasLt& lt_ = CublasLt::instance();
  Cuda backend_;
  rwkv::Memory<Cuda> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
  cublasLtMatmulHeuristicResult_t algorithms_[most_algorithms] = {};
  int count_ = 0, chosen_ = 0;
};

/// The operands of a product.
template <class T>
struct Operands {
  Numbers<T> x, y, w;

  Operands(Cuda& be, const ProductShape& shape, Index sets)
      : x(be, shape.rows * shape.in, -1, 1, 1, sets), y(be, shape.rows * shape.out, -1, 1, 2, sets),
        w(be, shape.out * shape.in, -range(shape), range(shape), 3, sets) {}

 private:
  static float range(const ProductShape& shape) { return std::sqrt(3.0f / static_cast<float>(shape.in)); }
};

using Found = std::map<std::string, double>;  ///< seconds by shape and number

/// Runs a case of cuBLASLt, or prints why it cannot.
template <class Run>
void run_with_cublaslt(Suite& suite, const Case& what, const Run& run) {
  suite.run(what, [&] {
    try {
      static_cast<void>(CublasLt::instance());
    } catch (const rwkv::Error& error) {
      return suite.skip(what, error.what());
    }
    run();
  });
}

template <class T>
void fastest(Suite& suite, const ProductShape& shape, Found& found) {
  const Case what{"cuBLASLt", shape.name(), number_name<T>(), work_of<T, T>(shape)};
  run_with_cublaslt(suite, what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Operands<T> all(be, shape, sets);
    LtProduct<T> product(be, shape, Choice::fastest);
    product.choose(all.x.data(), all.w.data(), all.y.data());
    const auto seconds =
        suite.seconds_of(sets, [&](Index set) { product(all.x.data(set), all.w.data(set), all.y.data(set)); });
    suite.report(what, seconds);
    found[shape.name() + "/" + what.number] = median(seconds);
  });
}

/// Seconds of the host for one call, while the device is busy with those before.
template <class Call>
double queueing_seconds_of(const Cuda& be, const Call& call) {
  using Clock = std::chrono::steady_clock;
  constexpr int calls = 20, repeats = 5;
  std::vector<double> seconds;
  for (int r = 0; r < repeats; ++r) {
    be.sync();
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) call(0);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count() / calls);
  }
  be.sync();
  return median(seconds);
}

/// CublasLtGemm, which may take 1 % longer than the same algorithm called directly. Both are timed in turn, because a
/// device gets slower as it warms up.
template <class T>
void wrapper(Suite& suite, const ProductShape& shape, const Found& found) {
  Case what{"CublasLtGemm", shape.name(), number_name<T>(), work_of<T, T>(shape)};
  run_with_cublaslt(suite, what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Operands<T> all(be, shape, sets);
    const LtProduct<T> product(be, shape, Choice::as_wrapper);
    const rwkv::CublasLtGemm gemm;
    const auto direct = [&](Index set) { product(all.x.data(set), all.w.data(set), all.y.data(set)); };
    const auto wrapped = [&](Index set) {
      gemm(be.stream(),
           rwkv::mul(matrix(all.y.data(set), shape.rows, shape.out), matrix(all.x.data(set), shape.rows, shape.in),
                     transposed(matrix(all.w.data(set), shape.out, shape.in))));
    };
    std::vector<double> seconds[2];
    for (const bool by_wrapper : {false, true, true, false}) {
      const auto some = by_wrapper ? suite.seconds_of(sets, wrapped) : suite.seconds_of(sets, direct);
      seconds[by_wrapper].insert(seconds[by_wrapper].end(), some.begin(), some.end());
    }
    const double reference = median(seconds[0]), time = median(seconds[1]);
    constexpr double most_overhead = 1.01;
    what.goal = most_overhead * reference / suite.floor_of(what.work);
    char remark[160];
    const int length =
        std::snprintf(remark, sizeof remark, "%.4f of the direct call; host %.2f us a call; direct %.2f us",
                      time / reference, queueing_seconds_of(be, wrapped) * 1e6, queueing_seconds_of(be, direct) * 1e6);
    if (const auto best = found.find(shape.name() + "/" + what.number); best != found.end()) {
      std::snprintf(remark + length, sizeof remark - static_cast<std::size_t>(length), "; %.3f of the fastest",
                    time / best->second);
    }
    suite.report(what, seconds[1], remark);
  });
}

}  // namespace

Found add_cublaslt(Suite& suite) {
  Found found;
  for (const Index size : {1024, 2048, 4096, 8192}) {
    if (suite.quick() && size != 4096) continue;
    fastest<rwkv::bf16>(suite, {size, size, size}, found);
    fastest<float>(suite, {size, size, size}, found);
  }
  // A prompt of 1024 tokens through matrices of the 169M and the 7B model.
  constexpr ProductShape prefill[] = {{1024, 4096, 4096}, {1024, 16384, 4096}, {1024, 4096, 16384}, {1024, 3072, 768}};
  const std::size_t prefills = suite.quick() ? 1 : std::size(prefill);
  for (std::size_t i = 0; i < prefills; ++i) fastest<rwkv::bf16>(suite, prefill[i], found);

  const Index size = suite.quick() ? 4096 : 8192;
  wrapper<rwkv::bf16>(suite, {size, size, size}, found);
  for (std::size_t i = 0; i < prefills; ++i) wrapper<rwkv::bf16>(suite, prefill[i], found);
  // A product of a training step, in float.
  wrapper<float>(suite, {8192, 3072, 768}, found);
  return found;
}

}  // namespace bench

#else

namespace bench {
std::map<std::string, double> add_cublaslt(Suite& suite) {
  for (const char* kernel : {"cuBLASLt", "CublasLtGemm"}) {
    const Case what{kernel, "any", "bf16"};
    suite.run(what, [&] { suite.skip(what, "built without cublasLt.h"); });
  }
  return {};
}
}  // namespace bench

#endif
