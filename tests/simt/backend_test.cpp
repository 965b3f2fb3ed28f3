/// The CUDA backend as a whole: its error messages, that it frees everything, and models that run eagerly, recorded,
/// and in several streams.
#include <doctest/doctest.h>

#include <rwkv/cuda.cuh>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "../model/live.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

using Net = LanguageModel<config::AnyVersion, float, Cuda>;
constexpr ModelSizes sizes{.vocab = 31, .width = 24, .depth = 2, .ffn = 40};

/// The emulated machine as it was when the test began, however the test ends.
struct Machine {
  simt::Device device = simt::device;
  std::size_t limit = simt::device_bytes_limit;
  ~Machine() {
    simt::device = device;
    simt::device_bytes_limit = limit;
    simt::fail_nothing();
  }
};

/// The objects of the runtime that the program holds.
struct Held {
  long device = simt::counts.device_allocations, host = simt::counts.host_allocations, streams = simt::counts.streams,
       events = simt::counts.events, graphs = simt::counts.graphs + simt::counts.graph_execs;
  bool operator==(const Held&) const = default;
};

/// x, 2 x and 3 x, summed over tokens.
struct Multiples {
  template <class R>
  RWKV_HD void map(R x, R& one, R& two, R& three) const {
    one = x;
    two = x + x;
    three = two + x;
  }
};

}  // namespace

TEST_CASE("simt: a machine that cannot run the backend is told so in a sentence") {
  const Held before;
  {
    const Machine restore;
    simt::device.count = 0;
    CHECK_THROWS_WITH_AS(Cuda(), "rwkv: there is no CUDA device", Error);
  }
  CHECK_THROWS_WITH_AS(Cuda(3), "rwkv: there is no CUDA device 3; this machine has 1", Error);
  {
    const Machine restore;
    simt::device.driver_version = 11040;
    CHECK_THROWS_WITH_AS(
        Cuda(), "rwkv: the CUDA driver is too old: it speaks CUDA 11.4, the program was built with 13.0", Error);
    simt::device.driver_version = 0;
    CHECK_THROWS_WITH_AS(Cuda(), "rwkv: this machine has no CUDA driver", Error);
  }
  {
    const Machine restore;
    simt::device.kernel_image = false;
    CHECK_THROWS_WITH_AS(Cuda(), doctest::Contains("has no code for CUDA device 0"), Error);
  }
  CHECK(Held() == before);
}

TEST_CASE("simt: out of device memory is an error that leaves nothing behind") {
  const Held before;
  const Machine restore;
  simt::device_bytes_limit = 1 << 16;
  const ModelSizes large{.vocab = 500, .width = 64, .depth = 3};
  CHECK_THROWS_WITH_AS(Net{large}, doctest::Contains("rwkv: CUDA device 0 is out of memory: "), Error);
  CHECK(Held() == before);

  simt::device_bytes_limit = restore.limit;
  const auto net = live<Net>(large, Cuda());
  const Held with_model;
  simt::device_bytes_limit = simt::counts.device_bytes + 1000;
  CHECK_THROWS_WITH_AS(net.context({.batch = 9}), doctest::Contains("bytes of device memory were asked for"), Error);
  CHECK(Held() == with_model);
}

TEST_CASE("simt: an error of the runtime at any of its calls is thrown, and nothing leaks") {
  const Machine restore;
  const auto text = some_tokens(5, sizes.vocab);
  const auto run = [&] {
    const auto net = live<Net>(sizes, Cuda());
    auto context = net.context({.chunk = 2});
    context.prefill(text);
    const auto logits = context.step(Token{3});
    return std::vector<float>(logits.begin(), logits.end());
  };
  const Held before;
  const long begin = simt::counts.calls;
  const auto want = run();
  const long calls = simt::counts.calls - begin;
  CHECK(calls > 50);
  CHECK(Held() == before);
  int thrown = 0;
  for (long n = 1; n <= calls; n += 7) {
    CAPTURE(n);
    simt::fail_call(n, cudaErrorLaunchFailure);
    try {
      // A failure of a call that only releases something is ignored.
      const bool equal = run() == want;
      CHECK(equal);
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("rwkv: ") == 0);
      ++thrown;
    }
    simt::fail_nothing();
    CHECK(Held() == before);
  }
  CHECK(thrown > calls / 14);
}

TEST_CASE("simt: a model, its contexts and a training run give back all that they took") {
  const Held before;
  {
    auto net = live<Net>(sizes, Cuda());
    auto context = net.context({.batch = 2});
    context.prefill(some_tokens(6, sizes.vocab));
    auto other = context.fork();
    other.step(some_tokens(2, sizes.vocab));
    Trainer<Net> trainer(net, {.shape = {.batch = 1, .length = 4}, .rate = {.decay = LearningRate::constant}});
    const auto text = some_tokens(5, sizes.vocab);
    trainer.step(
        Batch{.shape = {1, 4}, .tokens = {text.begin(), text.end() - 1}, .targets = {text.begin() + 1, text.end()}});
    CHECK(Held().device > before.device);
  }
  CHECK(Held() == before);
}

TEST_CASE("simt: a step allocates nothing, and takes five kernels a layer and few more") {
  const Machine restore;
  const auto net = live<Net>(sizes, Cuda());
  for (const Index batch : {1, 3, 8, 9}) {
    for (const bool record : {true, false}) {
      for (const char* allocates : {"cudaMalloc", "cudaHostAlloc"}) {
        auto context = net.context({.batch = batch, .record = record});
        CudaSampler sampler(context);
        const auto tokens = some_tokens(batch, sizes.vocab);
        simt::fail_function(allocates, cudaErrorMemoryAllocation);
        context.step(tokens);
        context.step(tokens, sampler);
        const Held before;
        const long launches = simt::counts.launches;
        context.step(tokens);
        CHECK(simt::counts.launches - launches <= 5 * sizes.depth + (batch <= 8 ? 2 : 3));
        context.step(tokens, sampler);
        CHECK(Held() == before);
        simt::fail_nothing();
      }
    }
  }
}

TEST_CASE("simt: packed sequences are those of each by itself") {
  const Index width = 5, lengths[] = {3, 0, 7, 1}, tokens = 11, sequences = 4;
  Cuda be;
  Exchange<float, Cuda> numbers(be, 2000);
  for (std::size_t i = 0; i < numbers.numbers().size(); ++i) {
    numbers.numbers()[i] = static_cast<float>(Philox{.key = 9}.block(i).uniform_double(0));
  }
  float* next = numbers.numbers().data();
  const auto take = [&](Index count) { return std::exchange(next, next + count); };
  float* const log_decay = take(width);
  for (Index c = 0; c < width; ++c) log_decay[c] = -0.1f * static_cast<float>(c + 1);
  const auto decay = arg::chan(Vec<float>{log_decay, width}), bonus = arg::chan(Vec<float>{take(width), width});
  const Seq<float> key{take(tokens * width), 1, tokens, width}, value{take(tokens * width), 1, tokens, width};
  const Mat<float> packed = matrix(take(sequences * 3 * width), sequences, 3 * width);
  const Mat<float> apart = matrix(take(sequences * 3 * width), sequences, 3 * width);
  const Seq<float> got{take(tokens * width), 1, tokens, width}, want{take(tokens * width), 1, tokens, width};
  Exchange<int, Cuda> starts(be, static_cast<std::size_t>(sequences) + 1);
  be.copy(Mat<const float>(packed), apart);
  const Arena none(nullptr, 0);
  int begin = 0;
  for (Index s = 0; s < sequences; ++s) {
    const Index length = lengths[s];
    const auto part = [&](const Seq<float>& x) { return Seq<float>{x.row(0, begin), 1, length, width}; };
    be.recur(none, Sequential{}, config::ChannelCell{}, Extent<1>{}, Mat<float>{apart.row(s), 1, 3 * width, 3 * width},
             decay, bonus, arg::in(part(key)), arg::in(part(value)), arg::out(part(want)));
    begin += static_cast<int>(length);
    starts.numbers()[static_cast<std::size_t>(s) + 1] = begin;
  }
  be.recur_packed(none, Sequential{}, config::ChannelCell{}, Extent<1>{}, packed,
                  static_cast<const int*>(starts.numbers().data()), decay, bonus, arg::in(key), arg::in(value),
                  arg::out(got));
  be.sync();
  CHECK(std::equal(got.data, got.data + tokens * width, want.data));
  CHECK(std::equal(packed.data, packed.data + sequences * 3 * width, apart.data));
  CHECK(std::isfinite(got.data[0]));
}

TEST_CASE("simt: two streams do not disturb each other") {
  // Work queued on both runs in a random order when either waits.
  const Index width = 40, time = 9;
  const auto noise = [](Index count, std::uint64_t seed) {
    std::vector<float> x;
    for (Index i = 0; i < count; ++i) {
      x.push_back(static_cast<float>(Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0)));
    }
    return x;
  };
  const auto x = noise(width * time, 1), w = noise(width * width, 2);
  struct Work {
    Cuda be;
    float *x, *w, *y, *z;
  };
  const auto queue = [&](Work& work) {
    for (int i = 0; i < 3; ++i) {
      work.be.gemm(
          mul(matrix(work.y, time, width), matrix(work.x, time, width), transposed(matrix(work.w, width, width))));
      work.be.rows(SigmoidGate{}, arg::in(Seq<float>{work.y, 1, time, width}),
                   arg::in(Seq<float>{work.x, 1, time, width}), arg::out(Seq<float>{work.z, 1, time, width}));
      work.be.copy(matrix(work.z, time, width), matrix(work.x, time, width));
    }
  };
  const auto make = [&](Cuda be) {
    Work work{be, be.allocate<float>(width * time), be.allocate<float>(width * width), be.allocate<float>(width * time),
              be.allocate<float>(width * time)};
    upload(work.be, std::span<const float>(x), work.x);
    upload(work.be, std::span<const float>(w), work.w);
    return work;
  };
  const auto result = [&](Work& work) {
    const auto numbers = OnHost(work.be, std::span<const float>(work.z, static_cast<std::size_t>(width * time)));
    std::vector<float> z(numbers.begin(), numbers.end());
    for (float* block : {work.x, work.w, work.y, work.z}) work.be.free(block);
    return z;
  };
  Work alone = make(Cuda());
  queue(alone);
  const auto want = result(alone);
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
    simt::seed = seed;
    Work one = make(Cuda()), two = make(one.be.independent());
    queue(one);
    queue(two);
    CHECK(result(two) == want);
    CHECK(result(one) == want);
  }
  simt::seed = 1;
}

TEST_CASE("simt: rows are scattered in their order, however many have one token") {
  Cuda be;
  const Index vocab = 9, width = 5;
  for (const Index rows : {1, 7, 2500}) {  // beyond the tokens that a block looks at together
    std::vector<float> from, want(static_cast<std::size_t>(vocab * width), 0.25f);
    for (Index i = 0; i < rows * width; ++i) {
      from.push_back(static_cast<float>(Philox{.key = 8}.block(static_cast<std::uint64_t>(i)).uniform_double(0)));
    }
    const auto chosen = some_tokens(rows, vocab - 1);  // the last row stays as it is
    Exchange<Token, Cuda> tokens(be, chosen.size());
    std::copy(chosen.begin(), chosen.end(), tokens.numbers().begin());
    Memory<Cuda> memory(be, 1 << 20);
    Arena ws = memory.arena();
    float *const x = ws.take<float>(rows * width), *const table = ws.take<float>(vocab * width);
    upload(be, std::span<const float>(from), x);
    upload(be, std::span<const float>(want), table);
    be.scatter_add_rows(ws, matrix(x, rows, width), std::span<const Token>(tokens.numbers()),
                        matrix(table, vocab, width));
    Reference().scatter_add_rows(ws, matrix(from.data(), rows, width), std::span<const Token>(chosen),
                                 matrix(want.data(), vocab, width));
    const OnHost got(be, std::span<const float>(table, want.size()));
    CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  }
}

TEST_CASE("simt: scratch is measured in a dry pass that ends however it ends") {
  Cuda be;
  const auto scratch = scratch_for(be, [&](Arena ws) {
    CHECK(be.dry);
    CHECK(ws.take<float>(100) == nullptr);
  });
  CHECK(scratch.bytes() == 448);  // whole cache lines
  CHECK(!be.dry);
  CHECK_THROWS_AS(scratch_for(be, [](Arena) { fail("no"); }), Error);
  CHECK(!be.dry);
  CHECK(scratch_for(be, [](Arena) {}).data() == nullptr);
}

TEST_CASE("simt: sums over tokens share a launch, and those of frozen parameters are skipped") {
  Cuda be;
  const Index tokens = 70, width = 37;
  std::vector<float> from(static_cast<std::size_t>(tokens * width));
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i % 16);
  const Memory<Cuda> memory(be, 1 << 16);
  Arena ws = memory.arena();
  float *const x = ws.take<float>(tokens * width), *const sums = ws.take<float>(2 * width);
  upload(be, std::span<const float>(from), x);
  be.fill(matrix(sums, 2, width), 1.0f);
  const Seq<float> seq{x, 1, tokens, width};
  const Vec<float> first{sums, width}, third{sums + width, width}, frozen{nullptr, width};
  const auto run = [&](Vec<float> one, Vec<float> two, Vec<float> three) {
    const auto call = [&](Arena scratch) {
      be.rows(scratch, Multiples{}, arg::cot(seq), arg::sum(one), arg::sum(two), arg::sum(three));
    };
    const auto scratch = scratch_for(be, call);
    be.sync();  // what was queued before is launched then
    const long before = simt::counts.launches;
    call(scratch.arena());
    be.sync();
    return simt::counts.launches - before;
  };
  CHECK(run(first, frozen, third) == 2);
  CHECK(run(frozen, frozen, frozen) == 1);
  const OnHost got(be, std::span<const float>(sums, static_cast<std::size_t>(2 * width)));
  for (Index c = 0; c < width; ++c) {
    float sum = 0;
    for (Index t = 0; t < tokens; ++t) sum += from[static_cast<std::size_t>(t * width + c)];
    CHECK(got.numbers()[static_cast<std::size_t>(c)] == 1 + sum);
    CHECK(got.numbers()[static_cast<std::size_t>(width + c)] == 1 + 3 * sum);
  }
}

TEST_CASE("simt: spans that the device cannot reach are refused") {
  Cuda be;
  auto* const table = be.allocate<float>(40);
  auto* const to = be.allocate<float>(10);
  const std::vector<Token> tokens{1, 2};
  CHECK_THROWS_WITH_AS(be.gather_rows(matrix(table, 8, 5), std::span<const Token>(tokens), matrix(to, 2, 5)),
                       doctest::Contains("their memory must come from allocate_host"), Error);
  be.free(table);
  be.free(to);
}

TEST_CASE("simt: a number that is not finite comes out as an error on the host") {
  auto net = live<Net>(sizes, Cuda());
  auto be = net.device();
  for (auto& parameter : net.parameters()) {
    if (parameter.name != "blocks.1.ffn.key.weight") continue;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    upload(be, std::span<const float>(&nan, 1), parameter.data + 3);
  }
  auto context = net.context();
  Sampler pick;
  CHECK_THROWS_WITH_AS(pick(context.step(Token{1})), doctest::Contains("it must be finite or -inf"), Error);

  Trainer<Net> trainer(net, {.shape = {.batch = 1, .length = 4}, .rate = {.decay = LearningRate::constant}});
  const auto text = some_tokens(5, sizes.vocab);
  CHECK_THROWS_WITH_AS(
      trainer.step(
          Batch{.shape = {1, 4}, .tokens = {text.begin(), text.end() - 1}, .targets = {text.begin() + 1, text.end()}}),
      doctest::Contains("blocks.1.ffn.key.weight is the first tensor that is not finite, at element 3"), Error);
}
