// error: rwkv: the adjoint of a row program takes its inputs, a cot(...) for each output, then one output for each input
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Seq<float> x) {
  rows_back(be, scratch, SigmoidGate{}, arg::in(x), arg::in(x), arg::cot(x), arg::out(x));
}
