/// Law: a model whose sizes are fixed by its type is the model whose sizes come from a file.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../configs.hpp"
#include "../golden.hpp"
#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::some_tokens;

namespace {

template <class V, class C>
void check_static_sizes() {
  using T = typename C::scalar;
  using B = typename C::Backend;
  using D = Dims<20, 4, 33, 10>;
  using Fixed = Model<Embedding<T, B, D>, Stack<Layer<TimeMix<V, T, B, D>, ChannelMix<V, T, B, D>>, 2>, Head<T, B, D>>;
  constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  const ModelSizes sizes{.vocab = 10, .width = 20, .depth = 2, .head_size = 5, .ffn = 33};
  const auto tokens = some_tokens(23, sizes.vocab);
  CHECK(golden::relative_error(all_logits(live<Fixed>(sizes, C::backend()), tokens),
                               all_logits(live<LanguageModel<V, T, B>>(sizes, C::backend()), tokens)) < tolerance);
  const auto refused = [&](auto change, const char* sentence) {
    ModelSizes other = sizes;
    change(other);
    CHECK_THROWS_WITH_AS((Fixed(other)), sentence, Error);
  };
  refused([](ModelSizes& s) { s.width = 25; }, "rwkv: the width is fixed to 20 by the type, the model has 25");
  refused([](ModelSizes& s) { s.depth = 3; }, "rwkv: the depth is fixed to 2 by the type, the model has 3");
}

}  // namespace

TEST_CASE_TEMPLATE("static sizes equal dynamic sizes", C, config::Config<double, Reference>,
                   config::Config<float, Cpu>) {
  config::each_version_in<C>([&]<class V>() { check_static_sizes<V, C>(); });
}
