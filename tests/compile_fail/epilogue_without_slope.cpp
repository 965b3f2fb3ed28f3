// error: rwkv: to be trained an epilogue needs template <class R> R slope(R y) const, its derivative as a function of its
// value
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

struct Exponential {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return exp(x);
  }
};
struct Mine : config::AnyVersion {
  using Activation = Exponential;
};
using Net = rwkv::LanguageModel<Mine, float, rwkv::Cpu>;

void run(Net& net) { rwkv::Gradient<Net>(net, {}); }
