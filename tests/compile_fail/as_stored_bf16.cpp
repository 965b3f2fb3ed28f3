// error (GNU): template constraint failure
// error (GNU): floating_point<Compute> using AsStored
// error (Clang): constraints not satisfied for alias template 'AsStored'
#include <rwkv/blocks.hpp>

rwkv::LanguageModel<config::AnyVersion, rwkv::AsStored<rwkv::bf16>, rwkv::Cpu> net({.vocab = 8,
                                                                                    .width = 8,
                                                                                    .depth = 1});
