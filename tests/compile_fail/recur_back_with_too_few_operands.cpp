// error: rwkv: recur_back takes one operand for each input of the recurrence, one shared(...) for each shared vector, then
// cot(...) of its output, then one output for each input and each shared vector
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<const float> first, Mat<float> dfirst, Seq<float> x) {
  be.recur_back(scratch, Auto{}, config::ChannelCell{}, Extent<3>{}, first, first, dfirst, arg::in(x), arg::cot(x),
                arg::out(x));
}
