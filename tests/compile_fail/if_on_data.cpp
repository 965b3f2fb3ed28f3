// A comparison of numbers is no bool, because a pack of numbers has no single answer: use select().
// error (GNU): could not convert
// error (Clang): is not contextually convertible to 'bool'
#include <rwkv/blocks.hpp>

using namespace rwkv;

struct Relu {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    if (x > R(0)) y = x;
  }
};

void run(Reference& be, Seq<double> x) { be.rows(Relu{}, arg::in(x), arg::out(x)); }
