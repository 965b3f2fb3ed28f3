/// What a model is composed of, and files of other compositions.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <filesystem>
#include <string>

using namespace rwkv;

namespace {

struct Cube {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return x * x * x;
  }
};
struct MixHalf {
  template <class R>
  RWKV_HD static R mix(R x, R before, R m) {
    return x * m + 0.5 * before * (1 - m);
  }
};
struct Cubic : V4 {
  using Activation = Cube;
};
struct Halved : V4 {
  using Mix = MixHalf;
};
struct InChunks : V4 {
  using Schedule = Scan;
};
struct Called : Cubic {
  static constexpr std::string_view name = "cubic";
};

/// A gate, a value and a state of one number.
struct Gated {
  static constexpr auto inputs = Inputs{"gate", "value"};
  static constexpr int state_size = 1;
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
};

template <int Weight>
struct Leak : Gated {
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    h[0] = sigmoid(x[0]) * h[0] + Weight * x[1];
    return h[0];
  }
};
struct NamedLeak : Leak<1> {
  static constexpr std::string_view name = "leak";
};

/// y = g^2 x + x / 2, a polynomial: decimals of few digits would make decimals of few digits of it. `Last` changes the last
/// digit, as another order of the operations does.
template <int Last>
struct Squared : Gated {
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    h[0] = 0.5 * (h[0] + x[1]);
    return (x[0] * x[0] * x[1] + h[0]) * (1 + Last * 1e-15);
  }
};
template <int Last, int Power>
struct Half {
  template <class R>
  RWKV_HD R operator()(R x) const {
    R y = 0.5 * x;
    for (int n = 1; n < Power; ++n) y = y * x;
    return y * (1 + Last * 1e-15);
  }
};

struct Rows {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"query", "key"};
  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    R y(0);
    for (Index n = 0; n < state.size; ++n) {
      state[n] = 0.9 * state[n] + x[0] * head(1, n);
      y += state[n] * head(0, n);
    }
    return y;
  }
};

template <class V, class T = float>
using Plain = LanguageModel<V, T, Reference>;
template <class... L>
using Chained = Model<Embedding<float, Reference>, Stack<Chain<L...>>, Head<float, Reference>>;
template <class V>
using Of = Layer<TimeMix<V, float, Reference>, ChannelMix<V, float, Reference>>;
template <class Cell>
using With = Layer<CellMix<Cell, float, Reference>, ChannelMix<V4, float, Reference>>;

}  // namespace

TEST_CASE("a composition: official versions by their names, variants by what they compute") {
  CHECK(composition<Plain<V4>>() == "RWKV-4");
  CHECK(composition<Plain<V5_1>>() == "RWKV-5.1");
  CHECK(composition<Plain<V7, double>>() == "RWKV-7");
  CHECK(composition<Plain<V7a>>() == "RWKV-7a");
  CHECK(composition<Plain<InChunks>>() == "RWKV-4");
  // The words are those of any compiler: files hold them.
  CHECK(composition<Plain<Cubic>>() == "RWKV-4, activation 691ce2e1");
  CHECK(composition<Plain<Halved>>() == "RWKV-4, mix 66d8a0af");
  CHECK(composition<Plain<Called>>() == "cubic");
  CHECK(composition<Chained<Of<V4>, Of<V4>>>() == "RWKV-4");
  CHECK(composition<Chained<Of<V4>>>() == "RWKV-4");
  CHECK(composition<Chained<Of<V4>, Of<V4>, With<NamedLeak>>>() == "RWKV-4; RWKV-4; leak + RWKV-4");
  CHECK(composition<Chained<Of<V4>, With<Leak<1>>>>() == "RWKV-4; cell 2192b815 + RWKV-4");
  CHECK(composition<Chained<With<Leak<2>>>>() != composition<Chained<With<Leak<1>>>>());
  CHECK(composition<Chained<With<Rows>>>() == "cell d9723e24 + RWKV-4");
}

TEST_CASE("the word of a composition does not depend on the last digits") {
  const auto same = []<class A, class B, class C>(A, B, C) {
    CHECK(detail::word_of<A>() == detail::word_of<B>());
    CHECK(detail::word_of<C>() == detail::word_of<B>());
  };
  same(Squared<-1>{}, Squared<0>{}, Squared<1>{});
  same(Half<-1, 1>{}, Half<0, 1>{}, Half<1, 1>{});
  same(Half<-1, 2>{}, Half<0, 2>{}, Half<1, 2>{});
  same(Half<-1, 3>{}, Half<0, 3>{}, Half<1, 3>{});
  same(Half<-1, 4>{}, Half<0, 4>{}, Half<1, 4>{});
  CHECK(detail::word_of<Half<0, 3>>() != detail::word_of<Half<0, 4>>());
  CHECK(composition<Chained<With<Squared<0>>>>() == "cell dc44d64c + RWKV-4");
}

TEST_CASE("a file of another composition is refused in a sentence, or loaded where that is wanted") {
  const auto folder = std::filesystem::temp_directory_path() / "rwkv-composition-test";
  std::filesystem::create_directory(folder);
  const ModelSizes sizes{.vocab = 7, .width = 8, .depth = 1};
  const auto cubic = (folder / "cubic.safetensors").string(), plain = (folder / "plain.safetensors").string();
  const Plain<Cubic> net(sizes);
  save_checkpoint(net, cubic);
  save_checkpoint(Plain<V4>(sizes), plain);

  CHECK(open_tensors(plain).metadata().empty());
  CHECK(open_tensors(cubic).metadata().at("rwkv.composition") == composition<Plain<Cubic>>());
  CHECK_NOTHROW(load_checkpoint<Plain<Cubic>>(cubic));
  CHECK_NOTHROW(load_checkpoint<Plain<Cubic>>(plain));  // official weights, to go on from
  const std::string sentence = cubic +
                               ": the file was written by a model composed of 'RWKV-4, activation 691ce2e1', this one "
                               "is 'RWKV-4'; LoadOptions::other_composition loads it all the same";
  CHECK_THROWS_WITH_AS(load_checkpoint<Plain<V4>>(cubic), sentence.c_str(), Error);
  CHECK_THROWS_WITH_AS(load_model(cubic, Cpu()), sentence.c_str(), Error);
  const auto other = load_checkpoint<Plain<V4>>(cubic, {.other_composition = true});
  save_checkpoint(other, plain, open_tensors(cubic).metadata());  // those texts are of the other model
  CHECK_FALSE(open_tensors(plain).metadata().contains("rwkv.composition"));
  CHECK_THROWS_AS(load_checkpoint<Plain<Halved>>(cubic), Error);
  save_quantised(Plain<Cubic>({.vocab = 7, .width = 32, .depth = 1}), cubic);
  CHECK_THROWS_AS(load_model(cubic, Cpu()), Error);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a training run goes on with the layers that it began with") {
  const auto file = std::filesystem::temp_directory_path() / "rwkv-composition-run.safetensors";
  const ModelSizes sizes{.vocab = 7, .width = 8, .depth = 1};
  Plain<Halved> halved(sizes);
  Plain<V4> plain(sizes);
  const TrainerOptions options{.shape = {.batch = 1, .length = 2}, .rate = {.steps = 1}};
  Trainer(halved, options).save(file);
  CHECK_NOTHROW(Trainer(halved, options).resume(file));
  const std::string sentence = file.string() +
                               ": the run in the file has other settings: layers is 'RWKV-4, mix 66d8a0af' there "
                               "and 'RWKV-4' here; a run goes on with the settings it began with. To train further, or "
                               "otherwise, begin a new run from its model";
  CHECK_THROWS_WITH_AS(Trainer(plain, options).resume(file), sentence.c_str(), Error);
  std::filesystem::remove(file);
}
