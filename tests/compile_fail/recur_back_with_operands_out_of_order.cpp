// error: rwkv: the operands of recur_back are the recurrence's inputs, then cot(...), then the outputs
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Reference& be, Arena scratch, Mat<const float> first, Mat<float> dfirst, Vec<float> w, Seq<float> k) {
  be.recur_back(scratch, Auto{}, WKV4{}, Extent<3>{}, first, first, dfirst, arg::chan(w), arg::chan(w), arg::in(k),
                arg::in(k), arg::sum(w), arg::sum(w), arg::out(k), arg::out(k), arg::cot(k));
}
