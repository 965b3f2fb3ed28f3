/// What the operands of chunks may be: parameters of all tokens, sums, packed sequences; and that results have the same
/// bits in any order of threads and blocks.
#include "chunks.hpp"

using namespace rwkv;
using config::Array;
using config::Decays;
using config::Given;
using config::Numbers;
using config::Problem;

TEST_CASE("simt: chunks have the same bits again, in any order of threads and blocks, and in any batch") {
  const Problem<WKV7, bf16> problem(2, 40, 2, 12, Decays::usual);
  const Given want = problem.got(Extent<12>{});
  for (const std::uint64_t seed : {5u, 6u}) {
    simt::seed = seed;
    simt::shuffle_blocks = true;
    CHECK(problem.got(Extent<12>{}, {.chunk = 16}) == want);
    simt::shuffle_blocks = false;
  }
}

TEST_CASE("simt: fewer tokens than a chunk have the bits of single steps") {
  const Problem<WKV7, float> problem(1, 7, 2, 12, Decays::usual);
  const Given steps = problem.run(Cuda(), float{}, Sequential{}, Extent<12>{});
  CHECK(problem.got(Extent<12>{}, {.chunk = 8}).y == steps.y);
  CHECK(problem.got(Extent<12>{}, {.chunk = 7}).y != steps.y);
  CHECK_THROWS_WITH(problem.got(Extent<12>{}, {.chunk = 0}), "rwkv: a chunk needs at least one token, not 0");
}

TEST_CASE("simt: chunks with parameters of all tokens, gradients that are added to, and frozen ones") {
  constexpr Index batch = 2, time = 37, size = 12, heads = 2, width = heads * size;
  Problem<WKV5, float> each(batch, time, heads, size, Decays::usual);
  for (const std::size_t i : {WKV5::decay + 1u, WKV5::bonus + 1u}) {
    auto& input = each.inputs[i];
    for (std::size_t n = static_cast<std::size_t>(width); n < input.size(); ++n) {
      input[n] = input[n - static_cast<std::size_t>(width)];
    }
  }
  const Given want = each.wanted();
  const auto sum = [&](const Numbers& gradient, double start) {
    Numbers totals(static_cast<std::size_t>(width), start);
    for (std::size_t n = 0; n < gradient.size(); ++n) totals[n % totals.size()] += gradient[n];
    return totals;
  };

  Cuda be;
  const auto numbers = [](Index count, double number) { return Numbers(static_cast<std::size_t>(count), number); };
  const auto one_row = [&](const Numbers& input) { return Numbers(input.begin(), input.begin() + width); };
  using Buffer = Array<Cuda, float>;
  Buffer v(be, each.inputs[0]), r(be, each.inputs[1]), w(be, one_row(each.inputs[2])), u(be, one_row(each.inputs[3])),
      k(be, each.inputs[4]), dy(be, each.dy), first(be, each.first), dlast(be, each.dlast), dfirst(be, each.first);
  const auto run = [&](bool frozen) {
    const auto gradient = [&] { return Buffer(be, numbers(batch * time * width, 1)); };
    Buffer dv(be, numbers(width, 1)), dr = gradient(), dw(be, numbers(width, 1)), du(be, numbers(width, 1)),
                                      dk = gradient();
    const auto in = [&](const Buffer& x) { return arg::in(x.seq(batch, time)); };
    const auto call = [&](Arena scratch) {
      be.recur_back(scratch, Chunked{}, WKV5{}, Extent<size>{}, Mat<const float>(first.mat(batch)),
                    Mat<const float>(dlast.mat(batch)), dfirst.mat(batch), in(v), arg::shared(in(r)),
                    arg::shared(arg::chan(w.vec())), arg::shared(arg::chan(u.vec())), arg::shared(in(k)),
                    arg::cot(dy.seq(batch, time)), arg::sum(dv.vec()), arg::add(dr.seq(batch, time)),
                    arg::sum(frozen ? Vec<float>{nullptr, 0} : dw.vec()), arg::sum(du.vec()),
                    arg::out(dk.seq(batch, time)));
    };
    const auto memory = scratch_for(be, call);
    call(memory.arena());
    be.sync();
    Numbers added = want.gradients[1];
    for (double& x : added) x += 1;
    CHECK(golden::relative_error(dv.get(), sum(want.gradients[0], 1)) < 1e-5);
    CHECK(golden::relative_error(dr.get(), added) < 1e-5);
    CHECK(golden::relative_error(dw.get(), frozen ? numbers(width, 1) : sum(want.gradients[2], 1)) < 1e-5);
    CHECK(golden::relative_error(du.get(), sum(want.gradients[3], 1)) < 1e-5);
    CHECK(golden::relative_error(dk.get(), want.gradients[4]) < 1e-5);
    CHECK(golden::relative_error(dfirst.get(), want.dfirst) < 1e-5);
  };
  run(false);
  run(true);
}

namespace {

/// Packed sequences beside the same sequences one by one.
template <class Cell>
void check_packed() {
  const std::vector<Index> lengths = {5, 0, 33, 1, 16, 15, 0};
  constexpr Index heads = 2, size = 12, width = heads * size;
  std::vector<int> starts{0};
  for (const Index length : lengths) starts.push_back(starts.back() + static_cast<int>(length));
  const Index sequences = std::ssize(lengths), tokens = starts.back();
  Problem<Cell, float> all(1, tokens, heads, size, Decays::extreme);
  all.first = config::noise(sequences * width * size, 91);
  all.dlast = config::noise(sequences * width * size, 92);

  Given want;
  want.gradients.resize(all.inputs.size());
  const auto append = [](Numbers& to, const Numbers& more) { to.insert(to.end(), more.begin(), more.end()); };
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    const auto cut = [&](const Numbers& from, Index begin, Index count) {
      return Numbers(from.begin() + begin, from.begin() + begin + count);
    };
    Problem<Cell, float> one(1, lengths[s], heads, size, Decays::usual);
    const Index numbers = width * size, at = static_cast<Index>(s) * numbers;
    one.first = cut(all.first, at, numbers);
    one.dlast = cut(all.dlast, at, numbers);
    one.dy = cut(all.dy, starts[s] * width, lengths[s] * width);
    for (std::size_t i = 0; i < all.inputs.size(); ++i) {
      one.inputs[i] = cut(all.inputs[i], starts[s] * width, lengths[s] * width);
    }
    if (lengths[s] == 0) {
      append(want.last, one.first);
      append(want.dfirst, one.dlast);
      continue;
    }
    const Given given = one.wanted();
    append(want.y, given.y);
    append(want.last, given.last);
    append(want.dfirst, given.dfirst);
    for (std::size_t i = 0; i < all.inputs.size(); ++i) append(want.gradients[i], given.gradients[i]);
  }

  Cuda be;
  using Buffer = Array<Cuda, float>;
  std::vector<std::unique_ptr<Buffer>> in, out;
  for (const Numbers& input : all.inputs) {
    in.push_back(std::make_unique<Buffer>(be, input));
    out.push_back(std::make_unique<Buffer>(be, all.dy));
  }
  Buffer y(be, all.dy), dy(be, all.dy), first(be, all.first), last(be, all.first), dlast(be, all.dlast),
      dfirst(be, all.first);
  int* const on_device = be.template allocate<int>(sequences + 1);
  be.copy(Mat<const int>(matrix(starts.data(), 1, sequences + 1)), matrix(on_device, 1, sequences + 1));
  const auto x = [&](std::size_t i) { return arg::in(in[i]->seq(1, tokens)); };
  const auto gradient = [&](std::size_t i) { return arg::out(out[i]->seq(1, tokens)); };
  [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
    const auto call = [&](Arena scratch) {
      be.recur_packed(scratch, Chunked{}, Cell{}, Extent<size>{}, last.mat(sequences), on_device, x(0),
                      arg::shared(x(Nth + 1))..., arg::out(y.seq(1, tokens)));
      be.recur_back_packed(scratch, Chunked{}, Cell{}, Extent<size>{}, Mat<const float>(first.mat(sequences)),
                           Mat<const float>(dlast.mat(sequences)), dfirst.mat(sequences), on_device, x(0),
                           arg::shared(x(Nth + 1))..., arg::cot(dy.seq(1, tokens)), gradient(0), gradient(Nth + 1)...);
    };
    const auto memory = scratch_for(be, call);
    call(memory.arena());
    be.sync();
  }
  (std::make_index_sequence<Cell::shared.size()>());
  be.free(on_device);
  Given got{y.get(), last.get(), dfirst.get(), {}};
  for (const auto& of : out) got.gradients.push_back(of->get());
  config::check_equal<float>(got, want);
}

}  // namespace

TEST_CASE_TEMPLATE("simt: chunks of sequences of different lengths in one row", Cell, config::ReadsItself, WKV7) {
  check_packed<Cell>();
}
