// Writes the logits after every token of a text, for comparison with another implementation.
#include <rwkv/rwkv.hpp>

#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "../options.hpp"
#include "../paths.hpp"
#include "../program.hpp"

namespace {

struct Settings {
  std::string model, vocabulary, prompt, out;
  std::vector<rwkv::Token> ids;
  std::string mode = "sequence", scalar = "float";
  int threads = 1;
};

std::vector<rwkv::Token> tokens_of(const Settings& settings, rwkv::Index vocab) {
  if (!settings.ids.empty()) return settings.ids;
  if (!settings.vocabulary.empty()) return rwkv::Tokenizer::open(settings.vocabulary).encode(settings.prompt);
  rwkv::expects(vocab == 256, settings.model, ": the model has a vocabulary of ", vocab,
                " tokens; pass its vocabulary file with --vocab, or token ids with --ids");
  return rwkv::Tokenizer::bytes().encode(settings.prompt);
}

/// What is written must be nothing that is read.
void check_paths(const Settings& settings) {
  for (const std::string& read : {settings.model, settings.vocabulary}) {
    rwkv::expects(read.empty() || !example::is_same_file(read, settings.out), settings.out,
                  ": the logits would be written over this file; pass another --out");
  }
  example::check_target(settings.out);
}

/// Runs a model whose logits are numbers of type T.
template <class T, class Net>
void run(const Settings& settings, const Net& net) {
  const auto tokens = tokens_of(settings, net.sizes().vocab);
  auto context = net.context({.chunk = settings.mode == "step" ? 1 : 256});
  std::vector<T> logits(tokens.size() * static_cast<std::size_t>(net.sizes().vocab));
  context.sequence(tokens, logits);
  rwkv::write_atomically(rwkv::system_files(), settings.out,
                         [&](rwkv::FileWriter& out) { out.write(std::as_bytes(std::span(logits))); });
  std::cout << tokens.size() << " tokens, " << net.sizes().vocab << " logits each, float" << 8 * sizeof(T) << ", in "
            << settings.out << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  example::Options options(
      "logits",
      "Writes the logits after every token, raw little-endian [tokens, vocab]: float64 for --scalar double, else "
      "float32.");
  options.add_argument("MODEL", settings.model, "checkpoint");
  options.add("--ids", settings.ids, "token ids, as 1,2,3");
  options.add_text("--prompt", settings.prompt, "text");
  options.add("--vocab", settings.vocabulary, "vocabulary file of a World model; without it a token is a byte");
  options.add("--mode", settings.mode, "time in parallel, or token by token", {"step", "sequence"});
  options.add("--scalar", settings.scalar, "number type to compute in", {"float", "double"});
  options.add("--threads", settings.threads, "threads", 1, 1024);
  options.add("--out", settings.out, "file to write");

  return example::run_program("logits", [&] {
    if (!options.parse(argc, argv)) return 0;  // help was asked for
    options.require("MODEL");
    options.require("--out");
    rwkv::expects(options.given("--ids") != options.given("--prompt"), "give one of --ids and --prompt");
    check_paths(settings);
    const rwkv::Cpu cpu(settings.threads);
    if (settings.scalar == "float") {
      run<float>(settings, rwkv::load_model(settings.model, cpu));
    } else {
      const auto file = rwkv::open_tensors(settings.model);
      rwkv::with_version_of(file, [&]<class V>(V) {
        run<double>(settings, rwkv::load_checkpoint<rwkv::LanguageModel<V, double, rwkv::Cpu>>(file, {}, cpu));
      });
    }
    return 0;
  });
}
