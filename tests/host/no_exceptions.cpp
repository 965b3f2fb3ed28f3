// A host without exceptions and run-time type information, built with RWKV_THROW as its handler (handler.hpp). The
// argument chooses the error.
#include <rwkv/check/cell_run.hpp>
#include <rwkv/rwkv.hpp>

#include <array>
#include <limits>
#include <string_view>
#include <vector>

#include "../any_version.hpp"

namespace {

using Net = rwkv::LanguageModel<config::AnyVersion, float, rwkv::Cpu>;

int run(std::string_view what) {
  Net net({.vocab = 16, .width = 8, .depth = 2}, rwkv::Cpu(2));
  rwkv::initialize(net, rwkv::Seed{1});
  auto context = net.context();
  const std::array<rwkv::Token, 5> text{1, 2, 3, 4, 5};
  if (what == "works") {
    rwkv::Trainer trainer(net, {.shape = {1, 4}, .rate = {.steps = 2}});
    const rwkv::Batch batch{
        .shape = {1, 4}, .tokens = {text.begin(), text.end() - 1}, .targets = {text.begin() + 1, text.end()}};
    const double loss = trainer.step(batch);
    return loss > 0 && loss < 10 && rwkv::argmax(context.prefill(text)) < 16 ? 0 : 1;
  }
  if (what == "missing") rwkv::open_tensors("no such model.safetensors");
  if (what == "damaged") rwkv::open_tensors(std::as_bytes(std::span(text)), "damaged");
  if (what == "weights") {
    net.parameters().front().data[3] = std::numeric_limits<float>::infinity();
    rwkv::save_checkpoint(net, "no_exceptions.safetensors");
    rwkv::load_checkpoint<Net>("no_exceptions.safetensors");
  }
  if (what == "token") context.step(rwkv::Token{16});
  if (what == "sampler") rwkv::argmax(std::array<float, 2>{0, std::numeric_limits<float>::quiet_NaN()});
  if (what == "vocabulary") rwkv::Tokenizer::world("1 'a", "small");
  if (what == "limits") rwkv::judged({.bytes = 1}, 0);
  if (what == "sizes") rwkv::CellRun<rwkv::WKV4, rwkv::Reference>({.width = 0});
  if (what == "context") net.context({.batch = 0});
  return 1;  // the error did not come
}

}  // namespace

int main(int argc, char** argv) { return run(argc > 1 ? argv[1] : "works"); }
