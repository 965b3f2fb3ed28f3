// error: rwkv: a row cell must have template <class R, class State, class Head> static R step(State state, const R
// (&x)[inputs], const Head& head), in which head(vector, n) is component n of a shared vector
#include <rwkv/blocks.hpp>

struct Retention {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr auto shared = rwkv::Inputs{"receptance", "key"};
};
static_assert(rwkv::explain_recurrence<Retention>());
