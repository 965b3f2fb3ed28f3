// error: rwkv: there is no TimeMix for this version; pass a version tag such as rwkv::V4 or a type derived from one
// error: rwkv: there is no ChannelMix for this version; pass a version tag such as rwkv::V4 or a type derived from one
// errors (GNU): 2
#include <rwkv/blocks.hpp>

struct V40 {};
rwkv::LanguageModel<V40, float, rwkv::Cpu> net({.vocab = 3, .width = 4, .depth = 1});
