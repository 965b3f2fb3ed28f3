// error: rwkv: the adjoint of a row program with stages takes no prev(...), whose tokens have other totals
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Reference& be, Arena scratch, Seq<double> x, Mat<double> s, Vec<double> p) {
  rows_back(be, scratch, Normalise{}, arg::prev(x, s), arg::chan(p), arg::chan(p), arg::cot(x), arg::back(x, s, s),
            arg::sum(p), arg::sum(p));
}
