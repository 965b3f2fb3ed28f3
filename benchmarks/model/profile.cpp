/// Time by operation, as a table:
///
///     bench_profile [training | recompute | prefill | decode] [threads] [shape]
///
/// training and recompute are whole steps with AdamW; prefill and decode run the same model on the same number of
/// tokens.
#include <algorithm>
#include <charconv>
#include <iostream>
#include <iterator>
#include <string_view>
#include <system_error>

#include "../timed.hpp"
#include "training_work.hpp"

namespace {

using bench::Timed;
using bench::TrainingShape;

/// Runs body() for a second or so and prints the profile, with the FMA peak before and after.
template <class Body>
void profile(const Timed& be, double flops, const Body& body) {
  body();  // warms up
  const double before = bench::detail::fma_rate(be.threads());
  be.profile().clear();
  double steps = 0, seconds = 0;
  const auto start = bench::Clock::now();
  do {
    body();
    ++steps;
    seconds = bench::seconds_since(start);
  } while (seconds < 2);
  be.profile().print(std::cout, steps, seconds);
  const double peak = (before + bench::detail::fma_rate(be.threads())) / 2;
  std::cout << "\nproducts of the step per second: " << flops * steps / seconds / 1e9 << " GFLOP/s, "
            << flops * steps / seconds / peak << " of the FMA peak, " << peak / 1e9 << " GFLOP/s\n";
}

template <class P>
void training(const TrainingShape& shape, const Timed& be) {
  auto net = bench::training_model<rwkv::V4>(shape, be);
  rwkv::Trainer<decltype(net), P> trainer(net, bench::training_options(shape));
  const rwkv::Batch batch = bench::training_batch(shape);
  profile(be, bench::training_flops(net, shape), [&] { trainer.step(batch); });
}

void inference(const TrainingShape& shape, const Timed& be, bool decode) {
  const auto net = bench::training_model<rwkv::V4>(shape, be);
  auto context = net.context({.batch = shape.batch});
  const rwkv::Batch batch = bench::training_batch(shape);
  const auto tokens = std::span(batch.tokens).first(decode ? std::size_t(shape.batch) : batch.tokens.size());
  const double share = static_cast<double>(tokens.size()) / shape.tokens();
  profile(be, bench::training_flops(net, shape) / 3 * share, [&] { context.prefill(tokens); });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "training";
  const std::string_view count = argc > 2 ? argv[2] : "2";
  int threads = 0;
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), threads);
  const bool is_count = error == std::errc() && end == count.data() + count.size() && threads > 0;
  const auto wanted = [&](const TrainingShape& shape) { return argc <= 3 || std::string_view(argv[3]) == shape.name; };
  const bool is_shape = std::any_of(std::begin(bench::training_shapes), std::end(bench::training_shapes), wanted);
  if ((what != "training" && what != "recompute" && what != "prefill" && what != "decode") || !is_count || !is_shape) {
    std::cerr << "usage: bench_profile [training | recompute | prefill | decode] [threads] [shape]\nshapes:";
    for (const TrainingShape& shape : bench::training_shapes) std::cerr << ' ' << shape.name;
    std::cerr << '\n';
    return 1;
  }
  const Timed be(threads);
  for (const TrainingShape& shape : bench::training_shapes) {
    if (!wanted(shape)) continue;
    std::cout << "\n### " << what << ", " << shape.name << ", " << be.threads() << " threads\n\n";
    if (what == "training") training<rwkv::Keep>(shape, be);
    else if (what == "recompute") training<rwkv::Recompute>(shape, be);
    else inference(shape, be, what == "decode");
  }
  return 0;
}
