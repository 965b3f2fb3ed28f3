#pragma once
/// The named sizes of a model, each static or dynamic.
#include <string_view>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The names sizes have in parameter tables.
enum class Axis : unsigned char {
  one,
  width,
  heads,
  head_size,
  ffn,
  vocab,
  mixes,      ///< mixes that depend on the data, in RWKV-6: 5
  mix_ranks,  ///< their low ranks, one after the other: 5 * ranks.mix
  rank_mix,
  rank_w,
  rank_a,
  rank_v,
  rank_g,
  rank_s,
  token_matrix  ///< a matrix for each token, in RWKV-7a: ranks.s * ranks.s
};

/// Ranks of low-rank products, named after the letters of their tensors. Zero asks for the version's default.
struct Ranks {
  Index mix = 0;  ///< each of the data-dependent mixes of RWKV-6
  Index w = 0;    ///< the decay, of RWKV-6 and 7
  Index a = 0;    ///< the in-context learning rate of RWKV-7
  Index v = 0;    ///< the value residual of RWKV-7
  Index g = 0;    ///< the gate of RWKV-7
  Index s = 0;    ///< DeepEmbed, in the channel mix of RWKV-7a

  /// These, with `defaults` in the place of zeros.
  constexpr Ranks or_else(const Ranks& defaults) const {
    const auto pick = [](Index own, Index other) { return own != 0 ? own : other; };
    return {pick(mix, defaults.mix), pick(w, defaults.w), pick(a, defaults.a),
            pick(v, defaults.v),     pick(g, defaults.g), pick(s, defaults.s)};
  }
};

/// Sizes as run-time numbers, for constructing models. Zero asks for the version's default.
struct ModelSizes {
  Index vocab = 0;      ///< rows of the embedding
  Index width = 0;      ///< channels of the residual stream
  Index depth = 0;      ///< layers
  Index head_size = 0;  ///< channels of a head, which divides the width; RWKV-4 does not use it
  Index ffn = 0;        ///< hidden units of the channel mix; 0: 4 * width, in RWKV-5.1 to 6 3.5 * width in whole 32s
  Ranks ranks{};        ///< of low-rank products, in RWKV-6 and 7
  Index window = 0;     ///< tokens that a block of one's own keeps, if its state grows with them; RWKV keeps none

  double norm_epsilon = 0;       ///< what layer norms add to a variance; 0: 1e-5
  double head_norm_epsilon = 0;  ///< what the norm of each head, ln_x, adds to a variance; 0: 64e-5
};

/// Sets the size that an axis names to what a tensor has along it. Axes that say nothing new set nothing.
constexpr void set_size(ModelSizes& sizes, Axis axis, Index size) {
  switch (axis) {
    case Axis::ffn: sizes.ffn = size; break;
    case Axis::head_size:
      if (sizes.width % size == 0) sizes.head_size = size;
      break;
    case Axis::heads:
      if (sizes.width % size == 0) sizes.head_size = sizes.width / size;
      break;
    case Axis::rank_mix: sizes.ranks.mix = size; break;
    case Axis::rank_w: sizes.ranks.w = size; break;
    case Axis::rank_a: sizes.ranks.a = size; break;
    case Axis::rank_v: sizes.ranks.v = size; break;
    case Axis::rank_g: sizes.ranks.g = size; break;
    case Axis::rank_s: sizes.ranks.s = size; break;
    default: break;
  }
}

/// Sizes that blocks see: `d.width`, never `x.extent(1)`. A static size lives in the type and lets small models unroll.
template <Index Width, Index Heads, Index Ffn, Index Vocab>
struct Dims {
  /// The width if it is part of the type, or `dyn`.
  static constexpr Index static_width = Width;
  /// The heads if they are, or `dyn`.
  static constexpr Index static_heads = Heads;
  /// The hidden units if they are, or `dyn`.
  static constexpr Index static_ffn = Ffn;
  /// Channels of a head if they follow, or `dyn`.
  static constexpr Index static_head_size = Width == dyn || Heads == dyn || Heads == 0 ? dyn : Width / Heads;

  [[no_unique_address]] Extent<Width> width{};  ///< channels
  [[no_unique_address]] Extent<Heads> heads{};  ///< heads of the time mix; 0 without
  [[no_unique_address]] Extent<Ffn> ffn{};      ///< hidden units of the channel mix
  [[no_unique_address]] Extent<Vocab> vocab{};  ///< tokens of the vocabulary
  Ranks ranks{};                                ///< of the low-rank products

  /// Channels of a head; 0 without heads.
  constexpr Index head_size() const { return Index(heads) == 0 ? 0 : Index(width) / Index(heads); }

  /// The sizes of a model; a size fixed in the type must agree.
  static Dims from(const ModelSizes& sizes) {
    expects(sizes.width > 0, "rwkv: a model needs a width above zero, not ", sizes.width);
    expects(sizes.ffn >= 0 && sizes.head_size >= 0, "rwkv: ffn and head size must not be negative: ", sizes.ffn,
            " and ", sizes.head_size);
    for (const Index rank :
         {sizes.ranks.mix, sizes.ranks.w, sizes.ranks.a, sizes.ranks.v, sizes.ranks.g, sizes.ranks.s})
      expects(rank >= 0, "rwkv: the rank of a product must not be negative: ", rank);
    constexpr Index largest = Index{1} << 40;  // so that no product of sizes below overflows
    for (const Index size : {sizes.width, sizes.ffn, sizes.vocab, sizes.ranks.mix, sizes.ranks.w, sizes.ranks.a,
                             sizes.ranks.v, sizes.ranks.g, sizes.ranks.s}) {
      expects(size <= largest, "rwkv: a size of ", size, " is above ", largest);
    }
    // What the model leaves open, the type may say.
    const Index open_heads = Heads == dyn ? 0 : Heads, open_ffn = Ffn == dyn ? 4 * sizes.width : Ffn;
    const Index head_count = sizes.head_size > 0 ? sizes.width / sizes.head_size : open_heads;
    expects(sizes.head_size == 0 || head_count * sizes.head_size == sizes.width, "rwkv: a width of ", sizes.width,
            " does not divide into heads of ", sizes.head_size);
    return {.width = agree(Extent<Width>{}, sizes.width, "width"),
            .heads = agree(Extent<Heads>{}, head_count, "number of heads"),
            .ffn = agree(Extent<Ffn>{}, sizes.ffn > 0 ? sizes.ffn : open_ffn, "ffn"),
            .vocab = agree(Extent<Vocab>{}, sizes.vocab, "vocab"),
            .ranks = sizes.ranks};
  }

  /// The size that an axis names.
  constexpr Index operator()(Axis axis) const {
    switch (axis) {
      case Axis::width: return width;
      case Axis::heads: return heads;
      case Axis::head_size: return head_size();
      case Axis::ffn: return ffn;
      case Axis::vocab: return vocab;
      case Axis::mixes: return 5;
      case Axis::mix_ranks: return 5 * ranks.mix;
      case Axis::rank_mix: return ranks.mix;
      case Axis::rank_w: return ranks.w;
      case Axis::rank_a: return ranks.a;
      case Axis::rank_v: return ranks.v;
      case Axis::rank_g: return ranks.g;
      case Axis::rank_s: return ranks.s;
      case Axis::token_matrix: return ranks.s * ranks.s;
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
