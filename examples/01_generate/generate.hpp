#pragma once
// Continues a prompt with a checkpoint of any version, straight from the official .pth, a .safetensors or a .gguf; on any backend.
#include <rwkv/rwkv.hpp>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "../backend_for.hpp"
#include "../options.hpp"
#include "../program.hpp"

namespace example {

struct Settings {
  std::string model = RWKV_EXAMPLE_MODEL;
  std::string vocabulary;
  std::string prompt = "\nKING RICHARD:\n";
  std::string ignore;
  rwkv::Index tokens = 300;
  int threads = 2;
  double temperature = 1.0, top_p = 0.7, presence = 0.0, frequency = 0.0;
  int top_k = 0;
  std::uint64_t seed = 42;
};

inline volatile std::sig_atomic_t interrupted = 0;

inline rwkv::Tokenizer tokenizer_for(const Settings& settings, rwkv::Index vocab) {
  if (!settings.vocabulary.empty()) {
    auto tokenizer = rwkv::Tokenizer::open(settings.vocabulary);
    rwkv::expects(tokenizer.size() <= vocab, settings.vocabulary, ": a vocabulary of ", tokenizer.size(),
                  " tokens does not fit a model of ", vocab);
    return tokenizer;
  }
  rwkv::expects(vocab == 256, settings.model, ": the model has a vocabulary of ", vocab,
                " tokens; pass its vocabulary file with --vocab");
  return rwkv::Tokenizer::bytes();
}

template <class Backend>
void run(const Settings& settings) {
  const auto note = [](std::string_view said) { std::cerr << said << '\n'; };  // on names that are not official
  const rwkv::AnyModel net = rwkv::load_model(settings.model, backend_for<Backend>(settings.threads),
                                              {.ignore = {settings.ignore}, .note = note});
  const auto tokenizer = tokenizer_for(settings, net.sizes().vocab);
  auto context = net.context();  // state and scratch: all that step() will ever need
  rwkv::Sampler pick{.temperature = settings.temperature,
                     .top_k = settings.top_k,
                     .top_p = settings.top_p,
                     .presence_penalty = settings.presence,
                     .frequency_penalty = settings.frequency,
                     .seed = settings.seed};

  std::cout << settings.prompt << std::flush;
  const auto stats =
      rwkv::generate(context, tokenizer, settings.prompt, settings.tokens, pick, [](std::string_view piece) {
        std::cout << piece << std::flush;
        return interrupted == 0 && std::cout.good();
      });
  std::fprintf(stderr, "\n\nprefill %td tokens, %.0f tokens/s; decode %td tokens, %.0f tokens/s; state %td bytes\n",
               stats.prompt_tokens, stats.prefill_tokens_per_second(), stats.new_tokens,
               stats.decode_tokens_per_second(), context.state_bytes());
}

/// The program.
template <class Backend>
int generate(int argc, char** argv) {
  Settings settings;
  Options options("generate", "Continues a prompt with an RWKV checkpoint (.pth, .safetensors or .gguf).");
  options.add_argument("MODEL", settings.model, "checkpoint");
  options.add_text("--prompt", settings.prompt, "text to continue");
  options.add("--tokens", settings.tokens, "how many tokens to add", 0);
  options.add("--temperature", settings.temperature, "0 takes the most likely token");
  options.add("--top-p", settings.top_p, "draw from the most likely tokens that together have this probability");
  options.add("--top-k", settings.top_k, "draw from this many tokens at most; 0: all");
  options.add("--presence", settings.presence, "penalty for tokens that occurred");
  options.add("--frequency", settings.frequency, "penalty for each time a token occurred");
  options.add("--seed", settings.seed, "equal seeds give equal text");
  if constexpr (Threaded<Backend>) options.add("--threads", settings.threads, "threads", 1, 1024);
  options.add("--ignore", settings.ignore, "pattern for names of tensors in the file that the model has no place for");
  options.add("--vocab", settings.vocabulary, "vocabulary file of a World model; without it a token is a byte");

  return run_program("generate", [&] {
    if (!options.parse(argc, argv)) return 0;  // help was asked for
    std::signal(SIGINT, [](int) { interrupted = 1; });
    run<Backend>(settings);
    return 0;
  });
}

}  // namespace example
