#pragma once
/// A short hash of a model's weights.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The hash of stream_of, continued by 64-bit words.
class Hash {
 public:
  void add(std::uint64_t word) {
    for (int byte = 0; byte < 8; ++byte, word >>= 8) value_ = (value_ ^ (word & 0xff)) * 0x100000001b3u;
  }
  void add(double number) { add(bits_as<std::uint64_t>(number)); }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = stream_of("");
};

/// A hash over names, shapes and up to 192 numbers of each parameter: those at its beginning, middle and end, as
/// doubles, so that it does not depend on the number type in memory; of quantised numbers, so many of their bytes. What
/// the model does not use is left out.
template <class B>
std::uint64_t fingerprint_of(std::span<const StoredParameter> parameters, const ModelSizes& sizes, B be) {
  Hash hash;
  hash.add(sizes.norm_epsilon);
  hash.add(sizes.head_norm_epsilon);
  for (const StoredParameter& parameter : parameters) {
    if (parameter.unused()) continue;
    hash.add(stream_of(parameter.name));
    for (const Index size : parameter.shape.span()) hash.add(static_cast<std::uint64_t>(size));
    const auto add_parts = [&]<class T>(const T* first, Index count) {
      const Index part = std::min<Index>(count, 64);
      for (const Index at : {Index{0}, (count - part) / 2, count - part}) {
        for (const T number : OnHost<B, T>(be, std::span(first + at, static_cast<std::size_t>(part)))) {
          if constexpr (std::is_same_v<T, std::byte>) hash.add(std::to_integer<std::uint64_t>(number));
          else hash.add(widen<double>(number));
        }
      }
    };
    const bool plain = with_type(parameter.dtype, [&]<class T>(T) {
      add_parts(static_cast<const T*>(parameter.data), parameter.shape.count());
    });
    if (!plain) add_parts(static_cast<const std::byte*>(parameter.data), parameter.bytes());  // quantised
  }
  return hash.value();
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
