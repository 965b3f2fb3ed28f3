#pragma once
// Continues a prompt, or a conversation, with a checkpoint of any version, straight from the official .pth, a .safetensors
// or a .gguf; on any backend.
#include <rwkv/rwkv.hpp>

#include <unistd.h>

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
  std::string chat, system, adapter, state;
  std::optional<double> alpha;  // of the adapter
  rwkv::Index tokens = 300;
  int threads = 2;
  rwkv::Sampler sampler{.top_p = 0.7, .seed = 42};
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

inline bool show(std::string_view piece) {
  std::cout << piece << std::flush;
  return interrupted == 0 && std::cout.good();
}

/// Every line of the standard input is a turn of the user; Ctrl-C ends a reply.
inline void converse(rwkv::AnyContext& context, const rwkv::Tokenizer& tokenizer, const Settings& settings) {
  const auto chat = rwkv::Chat::named(settings.chat);
  rwkv::Sampler pick = settings.sampler;
  std::string before = chat.begin(settings.system), line;
  const auto next_line = [&] {
    std::signal(SIGINT, SIG_DFL);
    if (isatty(STDIN_FILENO) != 0) std::cout << chat.user << ' ' << std::flush;
    return static_cast<bool>(std::getline(std::cin, line));
  };
  while (next_line()) {
    if (rwkv::Chat::cleaned(line).empty()) continue;
    interrupted = 0;
    std::signal(SIGINT, [](int) { interrupted = 1; });
    std::cout << chat.assistant << chat.opening << std::flush;
    pick.reset();  // penalties are for words of one reply
    rwkv::generate(context, tokenizer, before + chat.ask(line), settings.tokens, pick, show, chat.stops);
    std::cout << "\n\n";
    before = chat.separator;
  }
}

inline void continue_prompt(rwkv::AnyContext& context, const rwkv::Tokenizer& tokenizer, const Settings& settings) {
  std::signal(SIGINT, [](int) { interrupted = 1; });
  rwkv::Sampler pick = settings.sampler;
  std::cout << settings.prompt << std::flush;
  const auto stats = rwkv::generate(context, tokenizer, settings.prompt, settings.tokens, pick, show);
  std::fprintf(stderr, "\n\nprefill %td tokens, %.0f tokens/s; decode %td tokens, %.0f tokens/s; state %td bytes\n",
               stats.prompt_tokens, stats.prefill_tokens_per_second(), stats.new_tokens,
               stats.decode_tokens_per_second(), context.state_bytes());
}

template <class Backend>
void run(const Settings& settings) {
  const auto note = [](std::string_view said) { std::cerr << said << '\n'; };  // on names that are not official
  rwkv::LoadOptions loading{.ignore = {settings.ignore}, .note = note};
  if (!settings.adapter.empty())
    loading.adapters.push_back(rwkv::load_adapter(settings.adapter, {.alpha = settings.alpha}));
  const rwkv::AnyModel net = rwkv::load_model(settings.model, backend_for<Backend>(settings.threads), loading);
  const auto tokenizer = tokenizer_for(settings, net.sizes().vocab);
  auto context = net.context();  // state and scratch: all that step() will ever need
  if (!settings.state.empty()) rwkv::load_initial_state(context, 0, settings.state);
  if (settings.chat.empty()) continue_prompt(context, tokenizer, settings);
  else converse(context, tokenizer, settings);
}

/// The program.
template <class Backend>
int generate(int argc, char** argv) {
  Settings settings;
  Options options("generate", "Continues a prompt with an RWKV checkpoint (.pth, .safetensors or .gguf).");
  options.add_argument("MODEL", settings.model, "checkpoint");
  options.add_text("--prompt", settings.prompt, "text to continue");
  options.add("--tokens", settings.tokens, "how many tokens to add", 0);
  std::string preset;
  rwkv::Sampler& sampler = settings.sampler;
  options.add("--preset", preset, "options of the sampler that the makers of the models recommend",
              {"open-think", "fake-think", "tools"});
  options.add("--temperature", sampler.temperature, "0 takes the most likely token", 0);
  options.add("--top-p", sampler.top_p, "draw from the most likely tokens that together have this probability", 0, 1);
  options.add("--top-k", sampler.top_k, "draw from this many tokens at most; 0: all", 0);
  options.add("--presence", sampler.presence_penalty, "penalty for tokens that occurred");
  options.add("--frequency", sampler.frequency_penalty, "penalty for each time a token occurred");
  options.add("--decay", sampler.penalty_decay, "what is left of these times after one more token", 0, 1);
  options.add("--seed", sampler.seed, "equal seeds give equal text");
  options.add("--chat", settings.chat, "converse instead: each line of the input is a turn of the user",
              {"world", "g1", "g1-think", "g1-fake-think"});
  options.add_text("--system", settings.system, "what --chat tells the model first");
  if constexpr (Threaded<Backend>) options.add("--threads", settings.threads, "threads", 1, 1024);
  options.add("--adapter", settings.adapter, "changes of the model's matrices, from a file or folder (LoRA, MiSS)");
  double alpha = 0;
  options.add("--alpha", alpha, "scale of --adapter times its rank, in place of its file's");
  options.add("--state", settings.state, "initial state, from a file");
  options.add("--ignore", settings.ignore, "pattern for names of tensors in the file that the model has no place for");
  options.add("--vocab", settings.vocabulary, "vocabulary file of a World model; without it a token is a byte");

  return run_program("generate", [&] {
    if (!options.parse(argc, argv)) return 0;  // help was asked for
    if (!preset.empty()) {
      const rwkv::Sampler typed = sampler;
      sampler = rwkv::sampler_preset(preset).sampler(typed.seed);
      if (options.given("--temperature")) sampler.temperature = typed.temperature;
      if (options.given("--top-p")) sampler.top_p = typed.top_p;
      if (options.given("--top-k")) sampler.top_k = typed.top_k;
      if (options.given("--presence")) sampler.presence_penalty = typed.presence_penalty;
      if (options.given("--frequency")) sampler.frequency_penalty = typed.frequency_penalty;
      if (options.given("--decay")) sampler.penalty_decay = typed.penalty_decay;
    }
    rwkv::expects(!options.given("--system") || options.given("--chat"), "--system: this is for --chat");
    rwkv::expects(!options.given("--prompt") || !options.given("--chat"),
                  "--prompt: --chat reads its turns from the input");
    rwkv::expects(!options.given("--alpha") || options.given("--adapter"),
                  "--alpha: there is no --adapter that it belongs to");
    if (options.given("--alpha")) settings.alpha = alpha;
    run<Backend>(settings);
    return 0;
  });
}

}  // namespace example
