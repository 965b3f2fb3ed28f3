// error: rwkv: Scan needs a recurrence with lift, compose and enter
#include <rwkv/blocks.hpp>

using namespace rwkv;

struct Leaky {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr int state_size = 1;
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[1]) {
    return h[0] = h[0] + x[0];
  }
};

void run(Cpu& be, Arena scratch, Mat<float> state, Seq<float> x) {
  be.recur(scratch, Scan{}, Leaky{}, Extent<1>{}, state, arg::in(x), arg::out(x));
}
