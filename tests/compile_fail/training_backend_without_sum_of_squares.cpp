// error: rwkv: to train on, a backend must have double sum_of_squares(scratch, x)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void sum_of_squares() = delete;
};
static_assert(rwkv::explain_training_backend<Mine>());
