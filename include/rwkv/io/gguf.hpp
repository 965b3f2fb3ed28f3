#pragma once
/// Reading of GGUF, the format of llama.cpp: metadata, a list of tensors, and their data, quantised or not.
#include <cstddef>
#include <span>
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/io/tensor.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The tensors of a GGUF file of version 3, and as texts those of its metadata that are no arrays. `file` starts every
/// error. Tensors of number types that DType does not have are unreadable.
TensorTable read_gguf(std::span<const std::byte> bytes, std::string_view file);

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/gguf.ipp"
#endif
