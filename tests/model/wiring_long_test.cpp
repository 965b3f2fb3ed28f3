/// Checkpoints that are wired otherwise than official ones, composed from public blocks. Oracle: official wiring with the
/// same effect.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "../golden.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::some_tokens;

namespace {

/// The time mix of RWKV-7 with a constant added to what it gives.
template <class T, class B>
struct ShiftedTimeMix : TimeMix<V7, T, B> {
  using Official = TimeMix<V7, T, B>;
  struct Own {
    Channels<T> constant;  // [width]
    static constexpr auto fields() {
      return table(field("output.bias", &Own::constant, shape(Axis::width), start::constant(0)));
    }
  };
  Own own{};

  using Official::Official;
  void forward(B& be, Arena ws, Seq<const T> x, typename Official::State& state, Seq<T> y) const {
    auto side = start_side_streams<ShiftedTimeMix>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(B& be, Arena ws, SideStreams<T>& side, Seq<const T> x, typename Official::State& state, Seq<T> y) const {
    Official::forward(be, ws, side, x, state, y);
    be.rows(Copy{}, arg::chan(own.constant), arg::add(y));
  }
  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    Official::visit(self, prefix, visitor);
    visit_fields(self.own, self.dims, prefix, visitor);
  }
};

/// The head with a bias for every token.
template <class T, class B>
struct BiasedHead : Head<T, B> {
  using Official = Head<T, B>;
  struct Own {
    Channels<T> bias;  // [vocab]
    static constexpr auto fields() {
      return table(field("head.bias", &Own::bias, shape(Axis::vocab), start::constant(0)));
    }
  };
  Own own{};

  using Official::Official;
  void forward(B& be, Arena ws, Seq<const T> x, Seq<T> logits) const {
    Official::forward(be, ws, x, logits);
    be.rows(Copy{}, arg::chan(own.bias), arg::add(logits));
  }
  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    Official::visit(self, prefix, visitor);
    visit_fields(self.own, self.dims, prefix, visitor);
  }
};

template <class T, class B>
using Net = Model<Embedding<T, B>, Stack<Layer<ShiftedTimeMix<T, B>, ChannelMix<V7, T, B>>>, BiasedHead<T, B>>;
using OfficialNet = LanguageModel<V7, double, Reference>;

template <class M>
std::span<double> numbers_of(M& net, const std::string& name) {
  for (const auto& parameter : net.parameters()) {
    if (parameter.name == name) return parameter.numbers();
  }
  FAIL("there is no parameter ", name);
  return {};
}

}  // namespace

TEST_CASE("a constant behind the attention and a bias of the head") {
  const ModelSizes sizes{.vocab = 11, .width = 8, .depth = 1, .head_size = 4};
  const auto tokens = some_tokens(9, sizes.vocab);
  Net<double, Reference> net(sizes);
  auto official = live<OfficialNet>(sizes, {});
  for (const auto& parameter : official.parameters()) {
    std::ranges::copy(parameter.numbers(), numbers_of(net, parameter.name).begin());
  }
  // Where the time mix gives nothing, its constant is as if ln0 had added it.
  std::ranges::fill(numbers_of(net, "blocks.0.att.output.weight"), 0);
  std::ranges::fill(numbers_of(official, "blocks.0.att.output.weight"), 0);
  for (std::size_t i = 0; i < 8; ++i) {
    numbers_of(net, "blocks.0.att.output.bias")[i] = 0.25 * static_cast<double>(i) - 1;
    numbers_of(official, "blocks.0.ln0.bias")[i] += 0.25 * static_cast<double>(i) - 1;
  }
  auto expected = all_logits(official, tokens);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<double>(i % 11) - 3;
  for (std::size_t i = 0; i < 11; ++i) numbers_of(net, "head.bias")[i] = static_cast<double>(i) - 3;
  CHECK(golden::relative_error(all_logits(net, tokens), expected) < 1e-12);
}

TEST_CASE("a file with other wiring is read by its names, on the CPU as by the reference") {
  const ModelSizes sizes{.vocab = 11, .width = 16, .depth = 3, .head_size = 8};
  const auto tokens = some_tokens(9, sizes.vocab);
  const auto path = std::filesystem::temp_directory_path() / "rwkv_wiring.safetensors";
  const auto net = live<Net<double, Reference>>(sizes, {});
  save_checkpoint<float>(net, path);
  CHECK(golden::relative_error(all_logits(load_checkpoint<Net<float, Cpu>>(path, {}, Cpu(2)), tokens),
                               all_logits(net, tokens)) < 1e-4);
  CHECK_THROWS_WITH_AS(load_checkpoint<OfficialNet>(path),
                       doctest::Contains("composed of 'a block of its own + RWKV-7'"), Error);
  CHECK_THROWS_WITH_AS(load_checkpoint<OfficialNet>(path, {.other_composition = true}),
                       doctest::Contains("'blocks.0.att.output.bias'"), Error);
  std::filesystem::remove(path);
}
