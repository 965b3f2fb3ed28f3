// error: rwkv: the operands of recur are the recurrence's own inputs, then its shared(...) vectors, then out(...)
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<float> state, Vec<float> w, Seq<float> k, Seq<float> y) {
  be.recur(scratch, Auto{}, config::ChannelCell{}, Extent<3>{}, state, arg::chan(w), arg::chan(w), arg::in(k),
           arg::out(y), arg::in(k));
}
