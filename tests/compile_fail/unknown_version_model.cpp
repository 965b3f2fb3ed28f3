// error: rwkv: there is no TimeMix for this version; pass a version tag
// error: rwkv: there is no ChannelMix for this version; pass a version tag
// errors (GNU): 2
#include <rwkv/blocks.hpp>

struct Unknown {};
rwkv::LanguageModel<Unknown, float, rwkv::Cpu> net({.vocab = 3, .width = 4, .depth = 1});
