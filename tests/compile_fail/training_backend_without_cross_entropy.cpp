// error: rwkv: to train on, a backend must have cross_entropy(logits, targets, weights, losses)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void cross_entropy() = delete;
};
static_assert(rwkv::explain_training_backend<Mine>());
