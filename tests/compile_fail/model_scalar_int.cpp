// error: rwkv: the scalar parameter must be float, double, bf16, f16, Dual<double> or a Numerics<storage, compute>
// bundle
#include <rwkv/blocks.hpp>

rwkv::LanguageModel<config::AnyVersion, int, rwkv::Cpu> net({.vocab = 8, .width = 8, .depth = 1});
