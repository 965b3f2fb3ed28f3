/// The state of a sequence in the official order, and back.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 20, .width = 12, .depth = 2, .head_size = 4};
using Shape = std::vector<Index>;

template <class V>
void check_official() {
  const auto net = live<LanguageModel<V, float, Cpu>>(sizes, Cpu());
  auto context = net.context({.batch = 2});
  context.prefill(some_tokens(10, 20));
  auto arrays = official_state(context, 1);

  // Against the tensors of visit_state, one by one.
  std::size_t next = 0;
  context.visit_state([&](const std::string& name, const Mat<float>& view) {
    const std::vector<float> ours(view.row(1), view.row(1) + view.cols);
    const std::string block = name.substr(0, 13);
    if (!name.ends_with(".wkv")) {
      CHECK(arrays[next].name == block + "x");
      CHECK(arrays[next].shape == Shape{12});
      CHECK(arrays[next++].numbers == ours);
    } else if constexpr (std::is_same_v<V, V4>) {
      for (std::size_t n = 0; n < 3; ++n) {
        CHECK(arrays[next].name == block + std::vector{"aa", "bb", "pp"}[n]);
        CHECK(arrays[next].shape == Shape{12});
        const auto component = std::span(ours).subspan(n * 12, 12);
        CHECK(std::ranges::equal(arrays[next++].numbers, component));
      }
    } else {
      CHECK(arrays[next].name == block + "wkv");
      CHECK(arrays[next].shape == Shape{3, 4, 4});
      CHECK(arrays[next++].numbers == config::official_state<V>(ours, 4));
    }
  });
  CHECK(next == arrays.size());

  auto other = net.context();
  restore_official(other, 0, arrays, 5);
  CHECK(other.state(0) == context.state(1));
  CHECK(other.position(0) == 5);
  AnyContext any(net.context());
  restore_official(any, 0, arrays);
  CHECK(any.state(0) == context.state(1));
  CHECK(official_state(any, 0)[1].numbers == arrays[1].numbers);

  const auto before = other.state();
  const auto refused = [&](const std::string& sentence) {
    CHECK_THROWS_WITH_AS(restore_official(other, 0, arrays), sentence.c_str(), Error);
    CHECK(other.state() == before);
    CHECK(other.position(0) == 5);
  };
  std::swap(arrays[0], arrays[1]);
  refused("rwkv: array 0 of the official state of this model is blocks.0.att.x, not " + arrays[0].name);
  std::swap(arrays[0], arrays[1]);
  arrays[0].shape = {3, 4};
  refused("rwkv: blocks.0.att.x has shape [12], not [3, 4] with 12 numbers");
  arrays[0].shape = {12};
  arrays[0].numbers.pop_back();
  refused("rwkv: blocks.0.att.x has shape [12], not [12] with 11 numbers");
  arrays.pop_back();
  refused("rwkv: the official state of this model has " + std::to_string(next) + " arrays, not " +
          std::to_string(next - 1));
}

}  // namespace

TEST_CASE("a state goes to the official order and back") {
  config::each_version([&]<class V>() { check_official<V>(); });
}

TEST_CASE("a model of no one version has no official state") {
  const StateLayout layout{nullptr, sizes, DType::f32, {{"blocks.0.att.wkv", 48}}};
  CHECK_THROWS_WITH_AS(static_cast<void>(detail::official_arrays<float>(layout)),
                       "rwkv: the model is of no one version, so that there is no official list of its state", Error);
  CHECK(detail::version_of<Stack<Chain<config::BlocksOf<config::AnyVersion, Cpu>::Layer<float>>>> == nullptr);
  struct OtherCell : config::AnyVersion {
    using Cell = WKV5;
  };
  CHECK(detail::version_of<TimeMix<OtherCell, float, Cpu>> == nullptr);
  CHECK(detail::version_of<TimeMix<config::Scanning, float, Cpu>>->name == "RWKV-4");
  CHECK(detail::version_of<TimeMix<V5_1, float, Cpu>>->name == "RWKV-5.1");
  CHECK(detail::version_of<TimeMix<V5_0, float, Cpu>>->name == "RWKV-5.0");
}
