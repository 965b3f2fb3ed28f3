/// A row cell through time, with heads of any size.
#include <rwkv/blocks.hpp>

using namespace rwkv;

void forward(Cpu& cpu, Arena scratch, Index head, Mat<float> state, Seq<const float> value, Seq<const float> vectors,
             Seq<float> y) {
  const auto shared = arg::shared(arg::in(vectors));
  cpu.recur(scratch, Auto{}, WKV7{}, Extent<dyn>(head), state, arg::in(value), shared, shared, shared, shared, shared,
            arg::out(y));
}
