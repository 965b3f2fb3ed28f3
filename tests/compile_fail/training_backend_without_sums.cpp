// error: rwkv: to train on, a backend must have rows(scratch, program, operands...), also with sum(...)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  template <class P, class... Op>
  requires(!std::is_same_v<P, rwkv::Arena>) void rows(const P& program, const Op&... ops) {
    Reference::rows(program, ops...);
  }
};
static_assert(rwkv::explain_training_backend<Mine>());
