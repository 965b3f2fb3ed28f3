#pragma once
/// The named sizes of a model, each static or dynamic.
#include <string_view>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The names sizes have in parameter tables.
enum class Axis : unsigned char { one, width, heads, head_size, ffn, vocab };

/// Sizes as run-time numbers, for constructing models. Zero asks for the version's default.
struct ModelSizes {
  Index vocab = 0;      ///< rows of the embedding
  Index width = 0;      ///< channels of the residual stream
  Index depth = 0;      ///< layers
  Index head_size = 0;  ///< channels of a head; versions without heads ignore it
  Index ffn = 0;        ///< hidden units of the channel mix; 0: 4 * width
};

/// Sizes that blocks see: `d.width`, never `x.extent(1)`. A static size lives in the type and lets small models unroll.
template <Index Width, Index Heads, Index Ffn, Index Vocab>
struct Dims {
  static constexpr Index static_width = Width;
  static constexpr Index static_ffn = Ffn;
  static constexpr Index static_head_size = Width == dyn || Heads == dyn || Heads == 0 ? dyn : Width / Heads;

  [[no_unique_address]] Extent<Width> width{};
  [[no_unique_address]] Extent<Heads> heads{};
  [[no_unique_address]] Extent<Ffn> ffn{};
  [[no_unique_address]] Extent<Vocab> vocab{};

  constexpr Index head_size() const { return Index(heads) == 0 ? 0 : Index(width) / Index(heads); }

  /// The sizes of a model; a size fixed in the type must agree.
  static Dims from(const ModelSizes& sizes) {
    expects(sizes.width > 0, "rwkv: a model needs a width above zero, not ", sizes.width);
    expects(sizes.ffn >= 0 && sizes.head_size >= 0, "rwkv: ffn and head size must not be negative: ", sizes.ffn,
            " and ", sizes.head_size);
    const Index head_count = sizes.head_size > 0 ? sizes.width / sizes.head_size : 0;
    expects(sizes.head_size == 0 || head_count * sizes.head_size == sizes.width, "rwkv: a width of ", sizes.width,
            " does not divide into heads of ", sizes.head_size);
    return {.width = agree(Extent<Width>{}, sizes.width, "width"),
            .heads = agree(Extent<Heads>{}, head_count, "number of heads"),
            .ffn = agree(Extent<Ffn>{}, sizes.ffn > 0 ? sizes.ffn : 4 * sizes.width, "ffn"),
            .vocab = agree(Extent<Vocab>{}, sizes.vocab, "vocab")};
  }

  constexpr Index operator()(Axis axis) const {
    switch (axis) {
      case Axis::width: return width;
      case Axis::heads: return heads;
      case Axis::head_size: return head_size();
      case Axis::ffn: return ffn;
      case Axis::vocab: return vocab;
      case Axis::one: break;
    }
    return 1;
  }

 private:
  template <Index N>
  static Extent<N> agree(Extent<N> fixed, Index size, std::string_view what) {
    if constexpr (N == dyn) return size;
    expects(size == fixed, "rwkv: the ", what, " is fixed to ", Index(fixed), " by the type, the model has ", size);
    return fixed;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
