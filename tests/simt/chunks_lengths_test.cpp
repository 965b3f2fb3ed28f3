/// Chunks of heads of a static length; sequences in parts; the strongest decays and repeated keys of RWKV-7.
#include <cmath>

#include "chunks.hpp"

using namespace rwkv;
using config::check_chunks;
using config::Decays;
using config::Given;
using config::Problem;

TEST_CASE_TEMPLATE("simt: chunks of heads of a static length", Cell, WKV5, WKV7) {
  check_chunks<Cell, float>(Extent<16>{}, {33});
  check_chunks<Cell, float>(Extent<128>{}, {18}, 1, 2);
}

TEST_CASE_TEMPLATE("simt: two parts of a sequence, joined by the state and its cotangent, are the whole", Cell, WKV5,
                   WKV7) {
  constexpr Index time = 83, size = 16;
  const Problem<Cell, float> whole(1, time, 2, size, Decays::extreme);
  const Given want = whole.wanted();
  for (const Index middle : {1, 32, 50}) {
    CAPTURE(middle);
    const Given early = whole.part(0, middle, whole.first, whole.dlast).got(Extent<size>{});
    const Given later = whole.part(middle, time, early.last, whole.dlast).got(Extent<size>{});
    Given joined = whole.part(0, middle, whole.first, later.dfirst).got(Extent<size>{});
    const auto append = [](auto& to, const auto& more) { to.insert(to.end(), more.begin(), more.end()); };
    append(joined.y, later.y);
    for (std::size_t i = 0; i < want.gradients.size(); ++i) append(joined.gradients[i], later.gradients[i]);
    joined.last = later.last;
    config::check_equal<float>(joined, want);
  }
}

TEST_CASE("simt: chunks of RWKV-7 at its strongest decay, with keys that repeat") {
  constexpr Index time = 70, size = 16;
  Problem<WKV7, float> problem(1, time, 2, size, Decays::usual);
  for (double& w : problem.inputs[1 + WKV7::decay]) w = static_cast<float>(std::exp(-std::exp(-0.5)));
  const config::Numbers unit = problem.inputs[1 + WKV7::a];
  double norm = 0;
  for (std::size_t n = 0; n < size; ++n) norm += unit[n] * unit[n];
  for (std::size_t n = 0; n < unit.size(); ++n) {
    const double removed = unit[n % size] / std::sqrt(norm);
    problem.inputs[1 + WKV7::b][n] = static_cast<float>(0.98 * removed);
    problem.inputs[1 + WKV7::key][n] = static_cast<float>(removed);
    problem.inputs[1 + WKV7::a][n] = static_cast<float>(-removed);
  }
  config::check_equal<float>(problem.got(Extent<size>{}), problem.wanted());
}
