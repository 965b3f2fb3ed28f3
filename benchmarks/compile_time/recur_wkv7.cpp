/// The recurrence of a row cell.
#include <rwkv/blocks.hpp>

void recur(rwkv::Cpu& cpu, rwkv::Arena scratch, rwkv::Index head, rwkv::Mat<float> state, rwkv::Seq<const float> x,
           rwkv::Seq<float> y) {
  using namespace rwkv;
  const auto shared = arg::shared(arg::in(x));
  cpu.recur(scratch, Auto{}, WKV7{}, Extent<>{head}, state, arg::in(x), shared, shared, shared, shared, shared,
            arg::out(y));
}
