// error: rwkv: the operands of the adjoint of a row program are its inputs, then cot(...), then the outputs in the order of
// the inputs: back(...) for a prev(...), sum(...) for a chan(...)
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Seq<float> x, Mat<float> state, Vec<float> m) {
  rows_back(be, scratch, Mix<MixCurrent>{}, arg::in(x), arg::prev(x, state), arg::chan(m), arg::cot(x), arg::out(x),
            arg::sum(m), arg::back(x, state, state));
}
