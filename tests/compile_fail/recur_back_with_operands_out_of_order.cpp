// error: rwkv: the operands of recur_back are the recurrence's own inputs, its shared(...) vectors, cot(...), then the outputs
// in the order of the inputs
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Reference& be, Arena scratch, Mat<const float> first, Mat<float> dfirst, Vec<float> w, Seq<float> k) {
  be.recur_back(scratch, Auto{}, config::ChannelCell{}, Extent<3>{}, first, first, dfirst, arg::chan(w), arg::chan(w),
                arg::in(k), arg::in(k), arg::sum(w), arg::sum(w), arg::out(k), arg::out(k), arg::cot(k));
}
