// error: rwkv: recur_back takes channel cells; a row cell has no adjoint yet
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Arena scratch, Mat<const float> first, Mat<float> dfirst, Seq<float> x) {
  be.recur_back(scratch, Auto{}, WKV7{}, Extent<64>{}, first, first, dfirst, arg::in(x), arg::cot(x), arg::out(x));
}
