#pragma once
/// Matrix products by cuBLASLt. The program links the library; or, with RWKV_CUBLASLT_AT_RUN_TIME defined, loads it
/// when the first CublasLtGemm is made, and starts without it.
#include <cublasLt.h>

#include <algorithm>
#include <compare>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "rwkv/backend/cuda/product/gemm.cuh"
#ifdef RWKV_CUBLASLT_AT_RUN_TIME
#include <dlfcn.h>
#define RWKV_CUBLASLT_ABI cublaslt_loaded
#else
#define RWKV_CUBLASLT_ABI cublaslt_linked
#endif

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

namespace gpu {
inline namespace RWKV_CUBLASLT_ABI {

/// The functions of cuBLASLt that products need.
struct CublasLt {
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtDestroy) destroy;
  decltype(&::cublasLtGetStatusString) status_string;
  decltype(&::cublasLtMatmul) matmul;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&::cublasLtMatmulDescCreate) create_operation;
  decltype(&::cublasLtMatmulDescDestroy) destroy_operation;
  decltype(&::cublasLtMatmulDescSetAttribute) set_operation;
  decltype(&::cublasLtMatrixLayoutCreate) create_layout;
  decltype(&::cublasLtMatrixLayoutDestroy) destroy_layout;
  decltype(&::cublasLtMatmulPreferenceCreate) create_preference;
  decltype(&::cublasLtMatmulPreferenceDestroy) destroy_preference;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) set_preference;

#ifdef RWKV_CUBLASLT_AT_RUN_TIME
  CublasLt() {
#define RWKV_TEXT_(x) #x
#define RWKV_TEXT(x) RWKV_TEXT_(x)
    constexpr const char* name = "libcublasLt.so." RWKV_TEXT(CUBLAS_VER_MAJOR);
#undef RWKV_TEXT
#undef RWKV_TEXT_
    void* const library =
        dlopen(name, RTLD_NOW | RTLD_LOCAL);  // stays loaded, because its threads may outlive this object
    if (library == nullptr) fail("rwkv: cuBLASLt cannot be loaded: ", static_cast<const char*>(dlerror()));
    const auto find = [&](auto& function, const char* symbol) {
      void* const address = dlsym(library, symbol);
      expects(address != nullptr, "rwkv: ", name, " has no function ", symbol);
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(status_string, "cublasLtGetStatusString");
    find(matmul, "cublasLtMatmul");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(create_operation, "cublasLtMatmulDescCreate");
    find(destroy_operation, "cublasLtMatmulDescDestroy");
    find(set_operation, "cublasLtMatmulDescSetAttribute");
    find(create_layout, "cublasLtMatrixLayoutCreate");
    find(destroy_layout, "cublasLtMatrixLayoutDestroy");
    find(create_preference, "cublasLtMatmulPreferenceCreate");
    find(destroy_preference, "cublasLtMatmulPreferenceDestroy");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
  }
#else
  CublasLt()
      : create(&::cublasLtCreate), destroy(&::cublasLtDestroy), status_string(&::cublasLtGetStatusString),
        matmul(&::cublasLtMatmul), heuristic(&::cublasLtMatmulAlgoGetHeuristic),
        create_operation(&::cublasLtMatmulDescCreate), destroy_operation(&::cublasLtMatmulDescDestroy),
        set_operation(&::cublasLtMatmulDescSetAttribute), create_layout(&::cublasLtMatrixLayoutCreate),
        destroy_layout(&::cublasLtMatrixLayoutDestroy), create_preference(&::cublasLtMatmulPreferenceCreate),
        destroy_preference(&::cublasLtMatmulPreferenceDestroy),
        set_preference(&::cublasLtMatmulPreferenceSetAttribute) {}
#endif

  /// The functions, loaded once.
  /// Errors    the library cannot be loaded
  static const CublasLt& instance() {
    static const CublasLt functions;
    return functions;
  }

  void check(cublasStatus_t status, const char* call) const {
    if (status != CUBLAS_STATUS_SUCCESS) fail("rwkv: cuBLASLt: ", call, ": ", status_string(status));
  }
};

/// Owns an object of cuBLASLt, which the function `destroy` frees.
template <class T, auto destroy>
struct EndCublasLt {
  void operator()(T* object) const { static_cast<void>((CublasLt::instance().*destroy)(object)); }
};
template <class Handle, auto destroy>
using CublasLtObject =
    std::unique_ptr<std::remove_pointer_t<Handle>, EndCublasLt<std::remove_pointer_t<Handle>, destroy>>;

/// What CUDA calls the type T.
template <class T>
inline constexpr cudaDataType_t cublas_type = std::is_same_v<T, double> ? CUDA_R_64F
                                              : std::is_same_v<T, bf16> ? CUDA_R_16BF
                                              : std::is_same_v<T, f16>  ? CUDA_R_16F
                                                                        : CUDA_R_32F;

/// A factor or output as cuBLASLt takes it: column by column, so a row of ours is a column.
struct CublasLtMatrix {
  const void* data;
  Index rows, cols, stride;
  bool exchanged;  ///< transposed before the product

  template <class T>
  static CublasLtMatrix of(Mat<T> m, bool exchanged) {
    return {m.data, Index(m.cols), m.rows, std::max(m.stride, Index(m.cols)), exchanged};
  }
  /// The largest power of two up to 16 that divides the address.
  std::uint32_t alignment() const {
    const auto address = reinterpret_cast<std::uintptr_t>(data) | 16u;
    return static_cast<std::uint32_t>(address & ~(address - 1));
  }
};

/// A product d = a b or d += a b.
struct CublasLtProduct {
  CublasLtMatrix a, b, d;
  cudaDataType_t type;

  /// All that the choice of an algorithm depends on.
  struct Key {
    const void* stream;
    cudaDataType_t type;
    Index sizes[9];
    std::uint32_t flags[5];
    auto operator<=>(const Key&) const = default;
  };
  Key key(cudaStream_t stream) const {
    return {stream,
            type,
            {a.rows, a.cols, a.stride, b.rows, b.cols, b.stride, d.rows, d.cols, d.stride},
            {a.exchanged, b.exchanged, a.alignment(), b.alignment(), d.alignment()}};
  }
};

/// The algorithm for products with one key. Not usable when cuBLASLt has none.
class CublasLtPlan {
 public:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  CublasLtPlan(cublasLtHandle_t handle, const CublasLtProduct& p)
      : a_(layout(p.a, p.type)), b_(layout(p.b, p.type)), d_(layout(p.d, p.type)) {
    const CublasLt& lt = CublasLt::instance();
    const bool wide = p.type == CUDA_R_64F;
    cublasLtMatmulDesc_t operation = nullptr;
    lt.check(
        lt.create_operation(&operation, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, wide ? CUDA_R_64F : CUDA_R_32F),
        "cublasLtMatmulDescCreate");
    operation_.reset(operation);
    set_operation(CUBLASLT_MATMUL_DESC_TRANSA, p.a.exchanged ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_operation(CUBLASLT_MATMUL_DESC_TRANSB, p.b.exchanged ? CUBLAS_OP_T : CUBLAS_OP_N);

    cublasLtMatmulPreference_t preference = nullptr;
    lt.check(lt.create_preference(&preference), "cublasLtMatmulPreferenceCreate");
    const CublasLtObject<cublasLtMatmulPreference_t, &CublasLt::destroy_preference> owner(preference);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      lt.check(lt.set_preference(preference, what, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    // Parts of a sum are added in the workspace, in a fixed order.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.a.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.b.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.d.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.d.alignment());
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status =
        lt.heuristic(handle, operation_.get(), a_.get(), b_.get(), d_.get(), d_.get(), preference, 1, &result, &found);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return;
    lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
    usable_ = found > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    algorithm_ = result.algo;
  }

  bool usable() const { return usable_; }

  template <class A>
  void run(cublasLtHandle_t handle, const CublasLtProduct& p, bool added, void* workspace, cudaStream_t stream) const {
    const CublasLt& lt = CublasLt::instance();
    const A one = 1, kept = added ? A(1) : A(0);
    lt.check(
        lt.matmul(handle, operation_.get(), &one, p.a.data, a_.get(), p.b.data, b_.get(), &kept, p.d.data, d_.get(),
                  const_cast<void*>(p.d.data), d_.get(), &algorithm_, workspace, workspace_bytes, stream),
        "cublasLtMatmul");
  }

 private:
  using Layout = CublasLtObject<cublasLtMatrixLayout_t, &CublasLt::destroy_layout>;

  static Layout layout(const CublasLtMatrix& m, cudaDataType_t type) {
    const CublasLt& lt = CublasLt::instance();
    cublasLtMatrixLayout_t made = nullptr;
    lt.check(
        lt.create_layout(&made, type, static_cast<std::uint64_t>(m.rows), static_cast<std::uint64_t>(m.cols), m.stride),
        "cublasLtMatrixLayoutCreate");
    return Layout(made);
  }
  void set_operation(cublasLtMatmulDescAttributes_t what, cublasOperation_t value) {
    const CublasLt& lt = CublasLt::instance();
    lt.check(lt.set_operation(operation_.get(), what, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }

  Layout a_, b_, d_;
  CublasLtObject<cublasLtMatmulDesc_t, &CublasLt::destroy_operation> operation_;
  cublasLtMatmulAlgo_t algorithm_{};
  bool usable_ = false;
};

/// A handle of cuBLASLt and a workspace for one stream: streams may not share a workspace.
class CublasLtStream {
 public:
  /// May be called while the stream is recorded: the relaxed capture mode permits allocations.
  explicit CublasLtStream(const CudaStream& stream) : device_(stream.device()) {
    const CurrentDevice current(device_);
    const CublasLt& lt = CublasLt::instance();
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    RWKV_CUDA_TRY(cudaThreadExchangeStreamCaptureMode(&mode));
    const cublasStatus_t created = lt.create(&handle_);
    const cudaError_t allocated = cudaMalloc(&workspace_, CublasLtPlan::workspace_bytes);
    RWKV_CUDA_TRY(cudaThreadExchangeStreamCaptureMode(&mode));
    if (created == CUBLAS_STATUS_SUCCESS && allocated == cudaSuccess) return;
    release();
    lt.check(created, "cublasLtCreate");
    check_cuda(allocated, "cudaMalloc");
  }
  CublasLtStream(const CublasLtStream&) = delete;
  CublasLtStream& operator=(const CublasLtStream&) = delete;
  ~CublasLtStream() { release(); }

  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_; }

 private:
  void release() {
    if (workspace_ != nullptr) static_cast<void>(cudaFree(workspace_));
    if (handle_ != nullptr) static_cast<void>(CublasLt::instance().destroy(handle_));
  }

  int device_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
};

/// y = epilogue(y), in place.
template <class T, class Epilogue>
RWKV_KERNEL void __launch_bounds__(256) epilogue_kernel(Output<T, Epilogue> y) {
  const int col = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (col >= y.cols) return;
  for (int row = static_cast<int>(blockIdx.y); row < y.rows; row += static_cast<int>(gridDim.y)) {
    y.store(row, col, y.data[row * y.stride + col]);
  }
}

}  // namespace RWKV_CUBLASLT_ABI
}  // namespace gpu

inline namespace RWKV_CUBLASLT_ABI {

/// The Gemm of a backend that uses cuBLASLt for products of many rows whose factors have one type, where cuBLASLt
/// has an algorithm. The library's own kernels compute the others. Copies share the algorithms found and a workspace
/// of 32 MiB for each stream; the first product of a stream or shape allocates.
class CublasLtGemm {
 public:
  /// Errors    the library cannot be loaded
  CublasLtGemm() : cache_(std::make_shared<Cache>()) { static_cast<void>(gpu::CublasLt::instance()); }

  /// A CublasLtGemm that shares nothing with this one, for streams of a shorter life.
  CublasLtGemm independent() const { return {}; }

  template <class... P>
  void operator()(const CudaStream& stream, const P&... products) const {
    // A product that cuBLASLt computed is passed on without rows, so that our kernels skip it.
    gpu::gemm(stream, without_rows(products, multiply(stream, products))...);
  }

 private:
  struct Cache {
    std::mutex mutex;
    std::map<std::pair<int, const void*>, gpu::CublasLtStream> streams;
    std::map<gpu::CublasLtProduct::Key, gpu::CublasLtPlan> plans;
  };

  template <class P>
  static P without_rows(P product, bool done) {
    if (done) product.y.rows = 0;
    return product;
  }

  /// Returns false when our kernels are to compute the product. An epilogue runs as a kernel of its own; it must see
  /// unrounded sums, so the output must be in the accumulator type.
  template <class T, class W, class Epilogue>
  bool multiply(const CudaStream& stream, const Product<T, W, Epilogue>& p) const {
    constexpr bool plain = std::is_same_v<Epilogue, Identity>;
    if constexpr (std::is_same_v<T, W> && (plain || std::is_same_v<T, accumulator_t<T>>)) {
      constexpr Index few = 32;  // rows: such a product is bound by reading the weights, and left to our kernels
      if (p.x.cols == 0 || p.y.cols == 0 || p.y.rows <= few) return false;
      using M = gpu::CublasLtMatrix;
      if (!run<accumulator_t<T>>(stream, {M::of(p.w, true), M::of(p.x, false), M::of(p.y, false), gpu::cublas_type<T>},
                                 false)) {
        return false;
      }
      if constexpr (!plain) {
        const unsigned across = gpu::blocks_for(p.y.cols, 256);
        stream.launch({.grid = {across, static_cast<unsigned>(std::min(p.y.rows, Index{4096}))}, .block = {256}},
                      gpu::epilogue_kernel<T, Epilogue>, gpu::Output(p.y, false, p.epilogue));
      }
      return true;
    }
    return false;
  }
  template <class T, class W>
  bool multiply(const CudaStream& stream, const PlainProduct<T, W>& p) const {
    if constexpr (std::is_same_v<T, W>) {
      if (p.depth() == 0 || gpu::route_of(p, true) != gpu::Route::tiles) return false;
      using M = gpu::CublasLtMatrix;
      return run<accumulator_t<T>>(
          stream, {M::of(p.w, false), M::of(p.x, p.transposed), M::of(p.y, false), gpu::cublas_type<T>}, p.added);
    }
    return false;
  }

  /// Returns false when there is no algorithm.
  template <class A>
  bool run(const CudaStream& stream, const gpu::CublasLtProduct& p, bool added) const {
    const gpu::CurrentDevice current(stream.device());
    const std::lock_guard lock(cache_->mutex);
    const auto& own = cache_->streams.try_emplace({stream.device(), stream.handle()}, stream).first->second;
    const auto& plan = cache_->plans.try_emplace(p.key(stream.handle()), own.handle(), p).first->second;
    if (plan.usable()) plan.run<A>(own.handle(), p, added, own.workspace(), stream.handle());
    return plan.usable();
  }

  std::shared_ptr<Cache> cache_;
};

}  // namespace RWKV_CUBLASLT_ABI

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
