// Quantises the matrices of a checkpoint, and shows what that costs: the error of every tensor, and how much worse the
// model predicts a text.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "../options.hpp"
#include "../paths.hpp"
#include "../program.hpp"

namespace {

struct Settings {
  std::string model = RWKV_EXAMPLE_MODEL, out, vocabulary, text = RWKV_EXAMPLE_TEXT;
  std::string matrices = "Q8_0", embedding = "Q8_0", head = "Q8_0";
  rwkv::Index tokens = 20'000;
  int threads = 1;
};

const std::vector<std::string> types{"Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "keep"};

/// The end of the text, which a model that was trained on it has most likely not seen.
rwkv::TokenData last_tokens(const Settings& settings, rwkv::Index vocab) {
  const auto tokens = [&] {
    if (settings.vocabulary.empty()) return rwkv::TokenData::open(settings.text, rwkv::TokenWidth::bits8);
    const auto tokenizer = rwkv::Tokenizer::open(settings.vocabulary);
    const auto bytes = rwkv::read_file(settings.text);
    const std::string_view characters(reinterpret_cast<const char*>(bytes.view().data()), bytes.view().size());
    return rwkv::TokenData(tokenizer.encode(characters), settings.text);
  }();
  rwkv::expects(!settings.vocabulary.empty() || vocab == 256, settings.model, ": the model has a vocabulary of ", vocab,
                " tokens; pass its vocabulary file with --vocab");
  return tokens.slice(tokens.size() - std::min(tokens.size(), settings.tokens), tokens.size());
}

/// Writes the model, whose other weights stay in the types of their file.
std::vector<rwkv::QuantisedTensor> quantise(const Settings& settings) {
  const rwkv::Quantisation quantisation{.matrices = rwkv::quantised_named(settings.matrices),
                                        .embedding = rwkv::quantised_named(settings.embedding),
                                        .head = rwkv::quantised_named(settings.head)};
  const auto file = rwkv::open_tensors(settings.model);
  std::vector<rwkv::QuantisedTensor> list;
  rwkv::with_version_of(file, [&]<class V>(V) {
    const auto net = rwkv::load_checkpoint<rwkv::LanguageModel<V, rwkv::AsStored<float>, rwkv::Cpu>>(file);
    list = rwkv::save_quantised(net, settings.out, quantisation);
  });
  return list;
}

void report(const Settings& settings) {
  for (const rwkv::QuantisedTensor& tensor : quantise(settings)) {
    std::printf("%-36s %s  %10td -> %9td bytes  error %.4f\n", tensor.name.c_str(),
                std::string(name_of(tensor.type)).c_str(), tensor.before, tensor.after, tensor.error);
  }
  const auto size = [](const std::string& path) { return static_cast<double>(std::filesystem::file_size(path)); };
  std::printf("%s: %.1f MB, %.1f %% of the %.1f MB of %s\n", settings.out.c_str(), size(settings.out) / 1e6,
              100 * size(settings.out) / size(settings.model), size(settings.model) / 1e6, settings.model.c_str());
  if (settings.tokens == 0) return;
  const auto before = rwkv::load_model(settings.model, rwkv::Cpu(settings.threads));
  const auto data = last_tokens(settings, before.sizes().vocab);
  const double exact = rwkv::evaluate(before, data);
  const double loss = rwkv::evaluate(rwkv::load_model(settings.out, rwkv::Cpu(settings.threads)), data);
  std::printf("loss on %td tokens: %.5f, before %.5f (%+.3f %%)\n", data.size(), loss, exact, 100 * (loss / exact - 1));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  example::Options options("quantize", "Quantises the matrices of a checkpoint.");
  options.add_argument("MODEL", settings.model, "checkpoint");
  options.show_default("shakespeare-bf16.safetensors");
  options.add("--out", settings.out, "file to write, .safetensors");
  options.add("--type", settings.matrices, "of the matrices of time mixes and channel mixes", types);
  options.add("--embedding", settings.embedding, "type of the table of tokens", types);
  options.add("--head", settings.head, "type of the table of logits", types);
  options.add("--text", settings.text, "text to predict");
  options.show_default("tinyshakespeare.txt");
  options.add("--tokens", settings.tokens, "how many of its last tokens; 0: predict none", 0);
  options.add("--vocab", settings.vocabulary, "vocabulary file of a World model; without it a token is a byte");
  options.add("--threads", settings.threads, "threads", 1, 1024);

  return example::run_program("quantize", [&] {
    if (!options.parse(argc, argv)) return 0;  // help was asked for
    options.require("--out");
    for (const std::string& read : {settings.model, settings.text, settings.vocabulary}) {
      rwkv::expects(read.empty() || !example::is_same_file(read, settings.out), settings.out,
                    ": the model would be written over this file; pass another --out");
    }
    example::check_target(settings.out);
    report(settings);
    return 0;
  });
}
