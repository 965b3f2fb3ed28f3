/// Memory of a training pass by sequence length, as a CSV: what is kept from the forward to the backward pass (tape),
/// the memory of both passes (working), and the total with weights, gradients and states (all). Nothing runs: the
/// constructor of Gradient measures its memory, and pages that are never written take no physical memory.
#include <iostream>

#include "training_work.hpp"

namespace {

using bench::Index;
using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

struct Bytes {
  double tape, working, all;
};

template <class P>
Bytes bytes_of(Net& net, Index length) {
  const rwkv::Gradient<Net, P> gradient(net, {.batch = 1, .length = length});
  const Index fixed = net.parameter_count() * Index{sizeof(float)} + gradient.gradient_bytes();
  // The state, its value before the batch, and the cotangents of both.
  const Index states = 4 * gradient.state().bytes();
  return {static_cast<double>(gradient.tape_bytes()), static_cast<double>(gradient.working_bytes()),
          static_cast<double>(gradient.working_bytes() + fixed + states)};
}

}  // namespace

int main() {
  Net net(bench::training_shapes[0].sizes);
  std::cout << "tokens,keep_tape_MB,keep_tape_kB_per_token,keep_working_MB,keep_all_MB,recompute_tape_MB,"
               "recompute_tape_kB_per_token,recompute_working_MB,recompute_all_MB,tape_ratio,working_ratio\n";
  for (Index length = 256; length <= 8192; length *= 2) {
    const Bytes keep = bytes_of<rwkv::Keep>(net, length), again = bytes_of<rwkv::Recompute>(net, length);
    const double kilotokens = static_cast<double>(length) * 1e3;
    std::cout << length << ',' << keep.tape / 1e6 << ',' << keep.tape / kilotokens << ',' << keep.working / 1e6 << ','
              << keep.all / 1e6 << ',' << again.tape / 1e6 << ',' << again.tape / kilotokens << ','
              << again.working / 1e6 << ',' << again.all / 1e6 << ',' << again.tape / keep.tape << ','
              << again.working / keep.working << '\n';
  }
}
