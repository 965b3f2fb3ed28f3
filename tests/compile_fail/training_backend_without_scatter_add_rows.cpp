// error: rwkv: to train on, a backend must have scatter_add_rows(scratch, from, tokens, table)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void scatter_add_rows() = delete;
};
static_assert(rwkv::explain_training_backend<Mine>());
