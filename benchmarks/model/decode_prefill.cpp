/// Decode and prefill of RWKV-4 in the official sizes, and of RWKV-5.2 in those of 169M, with random weights. Only one model is in memory at a time; it
/// is made when its first benchmark starts, so run the benchmarks in order.
#include "../report.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;
using rwkv::ModelSizes;
using rwkv::Token;

struct Official {
  const char* name;
  ModelSizes sizes;
};
const Official official[] = {
    {"169M", {.vocab = 50277, .width = 768, .depth = 12}},
    {"430M", {.vocab = 50277, .width = 1024, .depth = 24}},
    {"1B5", {.vocab = 50277, .width = 2048, .depth = 24}},
};

/// The current model, type-erased.
struct Alive {
  std::string key;
  std::shared_ptr<void> model;
} alive;

template <class Net>
const Net& model_of(const std::string& key, const ModelSizes& sizes) {
  if (alive.key != key) {
    alive.model.reset();
    auto net = std::make_shared<Net>(sizes);
    bench::FillParameters fill;
    for (auto& parameter : net->parameters()) fill(parameter, parameter);
    alive = {key, net};
  }
  return *static_cast<const Net*>(alive.model.get());
}

/// The same weights, run by `threads` threads.
template <class Net>
Net on_threads(const Net& net, int threads) {
  Net other = Net::unbound(net.sizes(), Cpu(threads));
  other.parts = net.parts;
  other.adopt(alive.model);
  return other;
}

/// The bytes and operations of a token, counted from the tensors.
struct PerToken {
  double body_bytes = 0, body_flops = 0;  ///< all but the embedding table and the head
  double head_bytes = 0, head_flops = 0;

  template <class Net>
  explicit PerToken(const Net& net) {
    for (const auto& spec : net.parameters()) {
      const double count = static_cast<double>(spec.shape.count());
      const double bytes = count * sizeof(*spec.data);
      if (spec.role == rwkv::Role::head) {
        head_bytes = bytes;
        head_flops = 2 * count;
      } else if (spec.role != rwkv::Role::embedding) {
        body_bytes += bytes;
        if (spec.role != rwkv::Role::vector) body_flops += 2 * count;
      }
    }
  }
};

template <class V, class S>
void decode(benchmark::State& state, const Official& size, const std::string& key, int threads) {
  using Net = rwkv::LanguageModel<V, S, Cpu>;
  const Net net = on_threads(model_of<Net>(key, size.sizes), threads);
  const PerToken cost(net);
  auto context = net.context();
  Token token = 0;
  const double bytes = cost.body_bytes + cost.head_bytes;
  const bench::Work work{.bytes = bytes,
                         .flops = cost.body_flops + cost.head_flops,
                         .tokens = 1,
                         .working_set = bytes,
                         .threads = threads};
  bench::measure(state, work, [&] {
    const auto logits = context.step(token);
    benchmark::DoNotOptimize(logits.data());
    token = (token + 7919) % static_cast<Token>(size.sizes.vocab);
  });
}

template <class V, class S>
void prefill(benchmark::State& state, const Official& size, const std::string& key, int threads, Index time) {
  using Net = rwkv::LanguageModel<V, S, Cpu>;
  const Net net = on_threads(model_of<Net>(key, size.sizes), threads);
  const PerToken cost(net);
  auto context = net.context();
  std::vector<Token> tokens(static_cast<std::size_t>(time));
  const auto vocab = static_cast<std::size_t>(size.sizes.vocab);
  for (std::size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<Token>(t * 7919 % vocab);
  // Body weights are read once for each chunk, the head once for the logits after the last token.
  const double chunks = std::ceil(static_cast<double>(time) / 256);
  const bench::Work work{.bytes = cost.body_bytes * chunks + cost.head_bytes,
                         .flops = cost.body_flops * static_cast<double>(time) + cost.head_flops,
                         .tokens = static_cast<double>(time),
                         .working_set = cost.body_bytes + cost.head_bytes,
                         .threads = threads};
  bench::measure(state, work, [&] {
    const auto logits = context.prefill(tokens);
    benchmark::DoNotOptimize(logits.data());
  });
}

template <class V, class S>
void add_model(const Official& size, const char* scalar) {
  const std::string key = rwkv::join(size.name, "/", scalar);
  for (const int threads : {1, 2}) {
    bench::add(rwkv::join("decode/", key, "/", threads, "threads"),
               [=](benchmark::State& state) { decode<V, S>(state, size, key, threads); });
  }
  for (const Index time : {64, 512}) {
    for (const int threads : {1, 2}) {
      bench::add(rwkv::join("prefill/", key, "/T", time, "/", threads, "threads"),
                 [=](benchmark::State& state) { prefill<V, S>(state, size, key, threads, time); });
    }
  }
}

const bool registered = [] {
  for (const Official& size : official) {
    add_model<rwkv::V4, float>(size, "fp32");
    add_model<rwkv::V4, rwkv::bf16>(size, "bf16");
  }
  const rwkv::ModelSizes sizes{.vocab = 65536, .width = 768, .depth = 12, .head_size = 64};
  add_model<rwkv::V5, float>({"5.2-169M", sizes}, "fp32");
  add_model<rwkv::V6, float>({"6-191M", sizes}, "fp32");
  add_model<rwkv::V7, float>({"7-191M", sizes}, "fp32");
  return true;
}();

}  // namespace
