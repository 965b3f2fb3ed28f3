// fwd.hpp goes before everything and after everything, and its names are those of the definitions.
#include <rwkv/fwd.hpp>

using Net = rwkv::LanguageModel<rwkv::V4, rwkv::bf16, rwkv::Cpu>;
using Pattern = rwkv::Chain<
    rwkv::Layer<rwkv::TimeMix<rwkv::V4, float, rwkv::Reference>, rwkv::ChannelMix<rwkv::V4, float, rwkv::Reference>>>;
const void* address(const Net* net);
long width(rwkv::Seq<const float, 64> x);

#include "rwkv_all.hpp"

#include <rwkv/fwd.hpp>

const void* address(const Net* net) { return &net->sizes(); }
long width(rwkv::Seq<const float, 64> x) { return x.width; }
static_assert(rwkv::Block<rwkv::TokenShift<float, rwkv::Reference>>);
static_assert(Pattern::layers == 1);
