// A user's program with the building blocks alone.
#include <rwkv/blocks.hpp>

#include <iostream>
#include <vector>

int main() {
  using namespace rwkv;
  Cpu be;
  const Index time = 5, width = 12;
  std::vector<float> x(time * width, 1.0f), y(time * width), before(width, 0.5f);
  const TokenShift<float, Cpu> shift(ModelSizes{.width = width});
  TokenShift<float, Cpu>::State state{matrix(before.data(), 1, width)};
  const Arena none(nullptr, 0);  // a token shift needs no scratch
  shift.forward(be, none, Seq<const float>{x.data(), 1, time, width}, state, Seq<float>{y.data(), 1, time, width});
  std::cout << y.front() << ' ' << y.back() << '\n';
  return y.front() == 0.5f && y.back() == 1.0f && before[0] == 1.0f ? 0 : 1;
}
