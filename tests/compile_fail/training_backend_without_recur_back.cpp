// error: rwkv: to train on, a backend must have recur_back(scratch, schedule, cell, length, first, dlast, dfirst,
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

struct Mine : rwkv::Reference {
  void recur_back() = delete;
};
template class rwkv::Gradient<rwkv::LanguageModel<config::AnyVersion, float, Mine>>;
