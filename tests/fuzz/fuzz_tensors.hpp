#pragma once
/// What must hold for every file that opens.
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string_view>

#include "rwkv/io/names.hpp"
#include "rwkv/io/tensor_file.hpp"

/// Opens the bytes as a file of tensors. An rwkv::Error is a right answer; anything else that goes wrong ends the
/// process.
inline void open_and_check(std::span<const std::byte> bytes, bool verify_checksums) {
  const auto demand = [](bool holds) {
    if (!holds) std::abort();
  };
  try {
    const rwkv::TensorFile file = rwkv::open_tensors(bytes, "fuzzed", {.verify_checksums = verify_checksums});
    unsigned sum = 0;
    for (const rwkv::TensorView& tensor : file.tensors()) {
      demand(rwkv::detail::is_clean_name(tensor.name));
      demand(file.find(tensor.name) == &tensor);
      demand(rwkv::detail::count_bytes(tensor.shape, tensor.dtype).equals(tensor.bytes.size()));
      if (tensor.bytes.empty()) continue;
      demand(tensor.bytes.data() >= bytes.data() && tensor.bytes.size() <= bytes.size());
      demand(tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
      sum += std::to_integer<unsigned>(tensor.bytes.front()) + std::to_integer<unsigned>(tensor.bytes.back());
    }
    for (const rwkv::UnreadableTensor& tensor : file.unreadable()) {
      demand(rwkv::detail::is_clean_name(tensor.name) && !tensor.reason.empty());
      demand(!tensor.shape || rwkv::detail::is_possible(*tensor.shape));
      demand(file.find_unreadable(tensor.name) == &tensor);
    }
    demand(sum <= 510 * file.tensors().size());
    const rwkv::OfficialNames names(file);
    for (const rwkv::OfficialTensor& tensor : names.tensors()) {
      demand(names.find(tensor.name) == &tensor);
      if (tensor.unreadable != nullptr) continue;
      const auto blocks = tensor.bytes.size() / rwkv::size_of(tensor.dtype);
      const auto numbers = blocks * static_cast<std::size_t>(rwkv::length_of(tensor.dtype));
      demand(rwkv::detail::count_elements(*tensor.shape).equals(numbers));
      demand(tensor.bytes.size() == blocks * rwkv::size_of(tensor.dtype));
      if (tensor.bytes.empty()) continue;
      demand(tensor.bytes.data() >= bytes.data() && tensor.bytes.size() <= bytes.size());
      demand(tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
    }
    static_cast<void>(rwkv::detail::kind_by_names(names));
    const rwkv::ModelSizes sizes = rwkv::sizes_of_model(names);
    static_cast<void>(rwkv::Dims<rwkv::dyn, rwkv::dyn, rwkv::dyn, rwkv::dyn>::from(sizes));
    demand(sizes.vocab * sizes.width > 0 && sizes.ffn * sizes.width >= 0);
  } catch (const rwkv::Error& error) {
    demand(std::string_view(error.what()).starts_with("fuzzed"));
  }
}
