// error: rwkv: rows_back derives the adjoint of a row program without stages; one with stages needs an adjoint of its own,
// a row program such as NormaliseBack
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Reference& be, Arena scratch, Seq<double> x, Vec<double> p) {
  rows_back(be, scratch, Normalise{}, arg::in(x), arg::chan(p), arg::chan(p), arg::cot(x), arg::out(x), arg::sum(p),
            arg::sum(p));
}
