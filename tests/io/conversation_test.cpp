/// Conversations to and from files: what follows is what would have followed, to the last bit, or one sentence.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cmath>
#include <filesystem>
#include <map>

#include "../model/live.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 20, .width = 16, .depth = 2, .head_size = 8};

template <class V>
using NetOf = LanguageModel<V, float, Cpu>;
using Net = NetOf<config::AnyVersion>;

std::filesystem::path temporary(const std::string& name) { return std::filesystem::temp_directory_path() / name; }

Sampler lively() {
  return {.temperature = 1.5,
          .top_k = 15,
          .top_p = 0.95,
          .presence_penalty = 0.4,
          .frequency_penalty = 0.3,
          .penalty_decay = 0.97,
          .exempt = {2},
          .seed = 0x123456789abcdefu};
}

/// Goes on from a token that is picked and not yet run, and returns the logits and tokens that follow.
template <class C>
std::pair<std::vector<float>, std::vector<Token>> go_on(C& context, Sampler& pick, Token pending, int count) {
  std::pair<std::vector<float>, std::vector<Token>> after;
  for (int i = 0; i < count; ++i) {
    const auto logits = context.step(pending);
    after.first.insert(after.first.end(), logits.begin(), logits.end());
    after.second.push_back(pending = pick(logits));
  }
  return after;
}

std::string refusal(const std::filesystem::path& path, const auto& load) {
  try {
    load();
  } catch (const Error& error) {
    const std::string said = error.what(), name = detail::path_text(path) + ": ";
    CHECK(said.starts_with(name));
    return said.substr(std::min(said.size(), name.size()));
  }
  return "no error";
}

}  // namespace

TEST_CASE("a conversation that went through a file goes on bit for bit") {
  config::each_version([&]<class V>() {
    const auto net = live<NetOf<V>>(sizes, Cpu());
    const auto path = temporary("rwkv_conversation.safetensors");
    auto context = net.context();
    Sampler pick = lively();
    Token pending = pick(context.prefill(some_tokens(9, 20)));
    pending = go_on(context, pick, pending, 30).second.back();
    save_conversation(context, 0, pick, pending, path, {{"who", "the smith"}});
    const auto expected = go_on(context, pick, pending, 30);

    auto batch = net.context({.batch = 2});
    batch.prefill(some_tokens(6, 20));
    Sampler other;
    CHECK(load_conversation(batch, 1, other, path) == pending);
    CHECK(batch.position(1) == 39);
    CHECK(batch.position(0) == 3);
    batch.remove(0);
    CHECK(go_on(batch, other, pending, 30) == expected);
    CHECK(other.numbers() == pick.numbers());

    AnyContext any(net.context());
    CHECK(load_conversation(any, 0, other, path) == pending);
    CHECK(go_on(any, other, pending, 30) == expected);
    CHECK(open_tensors(path).metadata().at("who") == "the smith");

    // The state of it alone, and a conversation where nothing is pending.
    load_state(context, 0, path);
    CHECK(context.position(0) == 39);
    save_conversation(any, 0, Sampler{}, {}, path);
    CHECK_FALSE(load_conversation(context, 0, other, path).has_value());
    CHECK(other.numbers() == Sampler{}.numbers());
  });
}

TEST_CASE("a fingerprint tells weights apart, and nothing else") {
  const auto net = live<Net>(sizes, Cpu());
  const auto print = net.context().fingerprint();
  CHECK(net.context({.batch = 3}).fingerprint() == print);
  CHECK(AnyModel(live<Net>(sizes, Cpu(2))).context().fingerprint() == print);
  CHECK(net.context().fork().fingerprint() == print);
  ModelSizes other = sizes;
  other.norm_epsilon = 1e-6;
  CHECK(live<Net>(other, Cpu()).context().fingerprint() != print);

  // The number type in memory is no difference where it holds the same numbers.
  using Small = LanguageModel<config::AnyVersion, bf16, Cpu>;
  const auto path = temporary("rwkv_fingerprint.safetensors");
  save_checkpoint<bf16>(net, path);
  const auto rounded = load_checkpoint<Net>(path, {}, Cpu());
  CHECK(rounded.context().fingerprint() != print);
  CHECK(load_checkpoint<Small>(path, {}, Cpu()).context().fingerprint() == rounded.context().fingerprint());
  CHECK(load_model(path, Cpu()).context().fingerprint() == rounded.context().fingerprint());

  // Every tensor that the model uses counts.
  auto changed = live<Net>(sizes, Cpu());
  for (auto& parameter : changed.parameters()) {
    if (parameter.unused()) continue;
    CAPTURE(parameter.name);
    float& last = parameter.numbers().back();
    const float before = std::exchange(last, last + 1);
    CHECK(changed.context().fingerprint() != print);
    last = before;
  }
  CHECK(changed.context().fingerprint() == print);
}

TEST_CASE("a conversation that does not fit is refused, and nothing changes") {
  const auto net = live<Net>(sizes, Cpu());
  const auto path = temporary("rwkv_conversation_draft.safetensors");
  auto writer = net.context();
  Sampler pick = lively();
  Token pending = pick(writer.prefill(some_tokens(9, 20)));
  pending = go_on(writer, pick, pending, 5).second.back();
  save_conversation(writer, 0, pick, pending, path);
  const TensorFile file = open_tensors(path, {Access::loaded});

  auto context = net.context();
  context.step(3);
  Sampler own = lively();
  own(context.step(4));
  const auto state = context.state();
  const auto numbers = own.numbers();
  const auto refused = [&](auto& into) {
    const std::string said = refusal(path, [&] { load_conversation(into, 0, own, path); });
    CHECK(own.numbers() == numbers);
    return said;
  };
  /// With other texts, and with a tensor of the sampler that is another list, or missing.
  const auto changed = [&](std::map<std::string, std::string> texts, const std::string& name = "",
                           const std::vector<double>* list = nullptr) {
    auto metadata = file.metadata();
    for (const auto& [key, text] : texts) {
      if (text.empty()) metadata.erase(key);
      else metadata[key] = text;
    }
    std::vector<TensorView> tensors;
    for (TensorView tensor : file.tensors()) {
      if (tensor.name == name) {
        if (list == nullptr) continue;
        tensor.shape = {std::ssize(*list)};
        tensor.bytes = std::as_bytes(std::span(*list));
      }
      tensors.push_back(tensor);
    }
    save_safetensors(path, tensors, metadata);
    const std::string said = refused(context);
    CHECK(context.state() == state);
    CHECK(context.position(0) == 2);
    return said;
  };

  auto others = live<Net>(sizes, Cpu());
  others.parameters()[0].numbers()[0] += 1;
  auto stranger = others.context();
  const std::string said = refused(stranger);
  CHECK(said.starts_with("the conversation belongs to other weights: their fingerprint is '"));
  CHECK(said.ends_with("'; load_state takes the state alone"));
  CHECK(changed({{"rwkv.weights", ""}}) ==
        "this is the state of a sequence alone, and no conversation; load_state reads it");
  for (const std::string token : {"20", "-1", "x", "3 ", "99999999999"})
    CHECK(changed({{"rwkv.pending", token}}) == "the pending token '" + token + "' is outside the vocabulary of 20");
  CHECK(changed({{"rwkv.vocab", "21"}}) == "the state belongs to another model: vocab is '21' there and '20' here");
  CHECK(changed({}, "sampler.random") == "sampler.random is missing");
  const std::vector<double> short_list{1, 1}, no_temperature{NAN, 0, 1, 0, 0, 1}, large{20, 1};
  CHECK(changed({}, "sampler.options", &short_list) == "sampler.options has 2 numbers, not 6");
  CHECK(changed({}, "sampler.options", &no_temperature) ==
        "sampler: the temperature must be finite and at least 0, not nan");
  CHECK(changed({}, "sampler.counts", &large) == "sampler.counts has 20, where a whole number below 20 is due");
  std::vector<float> broken = writer.state();
  broken[5] = NAN;
  CHECK(changed({}, "blocks.0.att.shift") == "blocks.0.att.shift is missing from the file");

  CHECK_THROWS_WITH_AS(context.restore(0, broken), "rwkv: blocks.0.att.shift of the state has NaN at 5", Error);
  auto two = net.context({.batch = 2});
  auto both = two.state();
  both[16 * 2 - 1] = NAN;  // the last of the second sequence
  const auto before = two.state();
  CHECK_THROWS_WITH_AS(two.restore(both), "rwkv: blocks.0.att.shift of the state has NaN at 15", Error);
  CHECK(two.state() == before);
  CHECK(context.state() == state);
  CHECK_THROWS_WITH_AS(save_conversation(context, 0, own, Token{20}, path),
                       "rwkv: the pending token 20 is outside the vocabulary of 20", Error);
}
