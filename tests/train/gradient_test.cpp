/// Oracle: the training goldens, with the official model's gradient of every parameter.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>
#include <rwkv/train/gradient.hpp>

#include "../configs.hpp"
#include "../golden.hpp"
#include "../instances.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

template <class V, class C>
void check_gradients() {
  using T = typename C::scalar;
  using Net = LanguageModel<V, T, typename C::Backend>;
  const std::string model = config::Goldens<V>::model;
  CAPTURE(model);
  const golden::File want(golden::folder() / "training" / (model + ".grads.safetensors"));
  auto net = load_checkpoint<Net>(golden::folder() / "models" / (model + ".safetensors"), {}, C::backend());
  const auto tokens = want["tokens"];
  const auto run = [&](auto policy) {
    for (const Index chunk : {256, 7}) {
      Gradient<Net, decltype(policy)> gradient(
          net, {.batch = tokens.size(0), .length = tokens.size(1), .head_chunk = chunk});
      const double loss = gradient.add(tokens.as<Token>(), want["targets"].as<Token>());
      CHECK(std::abs(loss - want["loss"].values[0]) < (std::is_same_v<T, double> ? 1e-9 : 2e-6));
      const auto all = net.parameters();
      const auto used = std::count_if(all.begin(), all.end(), [](const auto& p) { return !p.unused(); });
      CHECK(std::ssize(gradient.parameters()) == used);
      for (const auto& parameter : gradient.parameters()) {
        CAPTURE(parameter.name);
        CHECK(golden::relative_error(config::as_in_files(parameter, config::read(net.device(), parameter.gradient)),
                                     want["grad." + parameter.name].values) <
              (std::is_same_v<T, double> ? 1e-7 : 2e-5));
      }
    }
  };
  run(Keep{});
  run(Recompute{});
}

}  // namespace

TEST_CASE_TEMPLATE("the gradient of every parameter is that of the golden", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_gradients<V, C>(); });
}
