/// Every kernel of matrix products, as nvcc compiles it: without a warning, spill or local array.
#include "rwkv/backend/cuda/product/gemm.cuh"
#include "rwkv/op/activation.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

template void gpu::gemm(const CudaStream&, const Product<float, float, SquaredRelu>&,
                        const PlainProduct<float, float>&);
template void gpu::gemm(const CudaStream&, const Product<float, bf16, SquaredRelu>&, const PlainProduct<float, bf16>&);
template void gpu::gemm(const CudaStream&, const Product<float, f16>&, const PlainProduct<float, f16>&);
template void gpu::gemm(const CudaStream&, const Product<bf16, bf16>&, const PlainProduct<bf16, bf16>&);
template void gpu::gemm(const CudaStream&, const Product<f16, f16>&, const PlainProduct<f16, f16>&);
// The products of a time mix and of a channel mix, which share their launches where rows are few.
template void gpu::gemm(const CudaStream&, const Product<float, float>&, const Product<float, float>&,
                        const Product<float, float>&);
template void gpu::gemm(const CudaStream&, const Product<float, bf16>&, const Product<float, bf16>&,
                        const Product<float, bf16>&);
template void gpu::gemm(const CudaStream&, const Product<float, f16>&, const Product<float, f16>&,
                        const Product<float, f16>&);
template void gpu::gemm(const CudaStream&, const Product<float, bf16, SquaredRelu>&, const Product<float, bf16>&);

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
