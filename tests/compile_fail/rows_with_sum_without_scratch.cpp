// error: rwkv: rows with a sum(...) needs scratch as its first argument
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Reference& be, Vec<float> p, Seq<float> x) { be.rows(Copy{}, arg::in(x), arg::cot(x), arg::sum(p)); }
