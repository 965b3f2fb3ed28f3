// A stack of one's own from the blocks of several versions: trained for a minute, then asked for text.
#include <rwkv/rwkv.hpp>

#include <cstdio>
#include <iostream>
#include <string>

#include "../options.hpp"
#include "../program.hpp"

using namespace rwkv;

namespace {

// [model]
template <class T, class B>  // the time mix of RWKV-6 with the channel mix of RWKV-4
using Mixed = Layer<TimeMix<V6, T, B>, ChannelMix<V4, T, B>>;
template <class T, class B>
using Goose = Layer<TimeMix<V7, T, B>, ChannelMix<V7, T, B>>;
template <class T,
          class B>  // every fourth layer is an RWKV-7; from the second one on it mixes in the value of the first
using Net = Model<Embedding<T, B>, Stack<Chain<Mixed<T, B>, Mixed<T, B>, Mixed<T, B>, Goose<T, B>>>, Head<T, B>>;
// [model]

struct Settings {
  std::string text = RWKV_EXAMPLE_TEXT;
  Index steps = 200, tokens = 300;
  int threads = 2;
};

void run(const Settings& settings) {
  Net<float, Cpu> net(
      {.vocab = 256, .width = 96, .depth = 8, .head_size = 32, .ranks = {.mix = 8, .w = 8, .a = 8, .v = 8, .g = 16}},
      Cpu(settings.threads));
  initialize(net, Seed{1});
  std::printf("8 layers, %td parameters\n", net.parameter_count());

  const BatchShape shape{.batch = 8, .length = 128};
  Trainer trainer(net, {.shape = shape,
                        .rate = {.peak = 3e-3, .final = 3e-4, .steps = settings.steps, .warmup = settings.steps / 10}});
  const auto text = TokenData::open(settings.text, TokenWidth::bits8);
  const RandomWindows windows(text, shape, Seed{2});
  for (Batch batch; trainer.steps() < settings.steps;) {
    windows.fill(trainer.steps(), batch);
    const double loss = trainer.step(batch);
    if (trainer.steps() % 20 == 0 || trainer.steps() == settings.steps) {
      std::printf("step %4td  loss %.3f\n", trainer.steps(), loss);
      std::fflush(stdout);
    }
  }

  auto context = net.context();
  Sampler pick{.temperature = 0.8, .top_p = 0.8, .seed = 3};
  generate(context, Tokenizer::bytes(), "\nKING RICHARD:\n", settings.tokens, pick, [](std::string_view piece) {
    std::cout << piece << std::flush;
    return std::cout.good();
  });
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  example::Options options("hybrid", "Trains a stack of RWKV-6, 4 and 7 on a text, and continues a line with it.");
  options.add("--text", settings.text, "text to train on");
  options.show_default("tinyshakespeare.txt");
  options.add("--steps", settings.steps, "of training", 1);
  options.add("--tokens", settings.tokens, "bytes of text", 0);
  options.add("--threads", settings.threads, "any number gives the same bits", 1, 1024);
  return example::run_program("hybrid", [&] {
    if (options.parse(argc, argv)) run(settings);
    return 0;
  });
}
