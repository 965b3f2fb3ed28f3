/// Decode and prefill of RWKV-4 in the official sizes, and of the later versions in those of 169M and 191M, with random
/// weights, also quantised. Only one model is in memory at a time; it is made when its first benchmark starts, so run the
/// benchmarks in order.
#include "rwkv/core/quantise.hpp"

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
constexpr bool is_as_stored = std::is_same_v<typename Net::storage, rwkv::AnyStorage>;

/// Live weights of a type that is known at run time: the matrices quantised, all others in float.
template <class Net>
void fill_quantised(Net& net, rwkv::DType type) {
  auto parameters = net.stored_parameters();
  const auto type_of = [&](const rwkv::StoredParameter& parameter) {
    const bool small = parameter.role == rwkv::Role::vector || parameter.role == rwkv::Role::low_rank;
    return small ? rwkv::DType::f32 : type;
  };
  std::size_t bytes = 0;
  for (const auto& parameter : parameters) {
    bytes += rwkv::bytes_of(type_of(parameter), static_cast<std::size_t>(parameter.shape.count())) + 64;
  }
  auto memory = std::make_shared<bench::HugePages>(bytes);
  auto* next = memory->template as<std::byte>();
  std::uint64_t seed = 1;
  for (auto& parameter : parameters) {
    const auto [least, most] = rwkv::live_range(parameter);
    const auto numbers =
        bench::uniform<float>(parameter.shape.count(), static_cast<float>(least), static_cast<float>(most), ++seed);
    if (type_of(parameter) == rwkv::DType::f32) std::memcpy(next, numbers.data(), numbers.size() * sizeof(float));
    rwkv::with_block(type_of(parameter), [&]<class Block>(Block block) {
      if constexpr (rwkv::can_quantise_to(Block::dtype)) {
        for (std::size_t b = 0; b < numbers.size() / Block::length; ++b) {
          rwkv::quantise(std::span<const float, 32>(numbers.data() + b * Block::length, 32), block);
          std::memcpy(next + b * sizeof(Block), &block, sizeof(Block));
        }
      }
    });
    parameter.bind(next, type_of(parameter));
    next += (rwkv::bytes_of(type_of(parameter), numbers.size()) + 63) / 64 * 64;
  }
  net.adopt(std::move(memory));
}

template <class Net>
const Net& model_of(const std::string& key, const ModelSizes& sizes, rwkv::DType type) {
  if (alive.key != key) {
    alive.model.reset();
    std::shared_ptr<Net> net;
    if constexpr (is_as_stored<Net>) {
      net = std::make_shared<Net>(Net::unbound(sizes, Cpu()));
      fill_quantised(*net, type);
    } else {
      net = std::make_shared<Net>(sizes);
      bench::FillParameters fill;
      for (auto& parameter : net->parameters()) fill(parameter, parameter);
    }
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
    for (const auto& spec : net.stored_parameters()) {
      const double count = static_cast<double>(spec.shape.count());
      const double bytes = static_cast<double>(spec.bytes());
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
void decode(benchmark::State& state, const Official& size, const std::string& key, rwkv::DType type, int threads) {
  using Net = rwkv::LanguageModel<V, S, Cpu>;
  const Net net = on_threads(model_of<Net>(key, size.sizes, type), threads);
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
void prefill(benchmark::State& state, const Official& size, const std::string& key, rwkv::DType type, int threads,
             Index time) {
  using Net = rwkv::LanguageModel<V, S, Cpu>;
  const Net net = on_threads(model_of<Net>(key, size.sizes, type), threads);
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

/// `type` is that of the matrices where S is AsStored.
template <class V, class S>
void add_model(const Official& size, const char* scalar, rwkv::DType type = rwkv::DType::f32) {
  const std::string key = rwkv::join(size.name, "/", scalar);
  for (const int threads : {1, 2}) {
    bench::add(rwkv::join("decode/", key, "/", threads, "threads"),
               [=](benchmark::State& state) { decode<V, S>(state, size, key, type, threads); });
  }
  for (const Index time : {64, 512}) {
    for (const int threads : {1, 2}) {
      bench::add(rwkv::join("prefill/", key, "/T", time, "/", threads, "threads"),
                 [=](benchmark::State& state) { prefill<V, S>(state, size, key, type, threads, time); });
    }
  }
}

const bool registered = [] {
  for (const Official& size : official) {
    add_model<rwkv::V4, float>(size, "fp32");
    add_model<rwkv::V4, rwkv::bf16>(size, "bf16");
    add_model<rwkv::V4, rwkv::f16>(size, "f16");
  }
  const rwkv::ModelSizes sizes{.vocab = 65536, .width = 768, .depth = 12, .head_size = 64};
  add_model<rwkv::V5, float>({"5.2-169M", sizes}, "fp32");
  add_model<rwkv::V6, float>({"6-191M", sizes}, "fp32");
  add_model<rwkv::V7, float>({"7-191M", sizes}, "fp32");
  add_model<rwkv::V7, rwkv::f16>({"7-191M", sizes}, "f16");
  using Stored = rwkv::AsStored<float>;
  constexpr std::pair<const char*, rwkv::DType> quantised[] = {{"q8_0", rwkv::DType::q8_0},
                                                               {"q5_1", rwkv::DType::q5_1},
                                                               {"q5_0", rwkv::DType::q5_0},
                                                               {"q4_0", rwkv::DType::q4_0}};
  for (const auto& [name, type] : quantised) {
    add_model<rwkv::V4, Stored>(official[0], name, type);
    add_model<rwkv::V7, Stored>({"7-191M", sizes}, name, type);
  }
  return true;
}();

}  // namespace
