// error: rwkv: recur writes its output, it cannot add to it
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<float> state, Vec<float> w, Seq<float> k, Seq<float> y) {
  be.recur(scratch, Auto{}, config::ChannelCell{}, Extent<3>{}, state, arg::chan(w), arg::chan(w), arg::in(k),
           arg::in(k), arg::add(y));
}
