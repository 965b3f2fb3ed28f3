// error: rwkv: recur takes one operand for each input of the recurrence, then one shared(...) for each shared vector,
// then out(...)
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<float> state, Seq<float> k, Seq<float> y) {
  be.recur(scratch, Auto{}, config::ChannelCell{}, Extent<3>{}, state, arg::in(k), arg::out(y));
}
