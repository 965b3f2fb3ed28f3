#pragma once
/// Reading of PyTorch's .pth: a zip archive with a pickle that describes tensors and one entry per storage.
#include <cstddef>
#include <span>
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/io/tensor.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The tensors of a .pth; `file` starts every error.
TensorTable read_pth(std::span<const std::byte> bytes, std::string_view file, bool verify_checksums);

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/pth.ipp"
#endif
