// error: rwkv: Chunked needs a row cell that declares its transition
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<float> state, Seq<float> x) {
  be.recur(scratch, Chunked{}, WKV4{}, Extent<3>{}, state, arg::in(x), arg::in(x), arg::in(x), arg::in(x), arg::out(x));
}
