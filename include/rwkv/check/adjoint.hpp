#pragma once
/// Laws that the backward pass of a block or cell must satisfy, for tests of your own. They hold to rounding, because
/// the derivatives come from dual numbers and not from finite differences.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "rwkv/cell/derive.hpp"
#include "rwkv/check/block_run.hpp"
#include "rwkv/core/dual.hpp"
#include "rwkv/core/finite.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The case in which a law is tried: sizes, and the seed of the random numbers.
struct LawTrial {
  Index batch = 2;         ///< sequences
  Index time = 7;          ///< tokens of each
  Index before = 3;        ///< tokens that the initial state has seen; 0 is the state before the first token
  std::uint64_t seed = 1;  ///< of the random numbers
};

namespace detail {

/// The two sides of <cotangent, J u> = <J^T cotangent, u>, term by term.
struct Pairing {
  double forwards = 0, backwards = 0, size = 0;

  void add_forwards(double cotangent, double along) {
    forwards += cotangent * along;
    size += std::abs(cotangent * along);
  }
  void add_backwards(double gradient, double u) {
    backwards += gradient * u;
    size += std::abs(gradient * u);
  }
  double defect() const {
    const double difference = std::abs(forwards - backwards);
    return is_nan(difference) ? INFINITY : difference / std::max(size, 1e-300);
  }
};

/// The largest |a - b| over the largest |a|.
template <class T>
double difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY, scale = 1e-300;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double gap = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = is_nan(gap) ? INFINITY : std::max(worst, gap);
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
  }
  return worst / scale;
}

template <class T>
void fill_centred(std::vector<T>& numbers, std::uint64_t seed, std::uint64_t stream) {
  const auto drawn = centred_numbers(numbers.size(), seed, stream);
  std::transform(drawn.begin(), drawn.end(), numbers.begin(), [](double x) { return static_cast<T>(x); });
}

/// Draws tokens of a vocabulary, if there is one.
inline void fill_tokens(std::vector<Token>& tokens, Index vocab, std::uint64_t seed, std::uint64_t stream) {
  const auto drawn = centred_numbers(tokens.size(), seed, stream);
  std::transform(drawn.begin(), drawn.end(), tokens.begin(),
                 [&](double x) { return static_cast<Token>((x + 1) / 2 * static_cast<double>(vocab)); });
}

/// Draws live parameters, a state after some tokens, an input, and cotangents of y and of the last state.
template <class K, class P>
void draw(BlockRun<K, P>& run, const ModelSizes& sizes, const LawTrial& trial) {
  enum Stream : std::uint64_t { input, earlier, of_output, of_state, parameter, token = 1 << 20, earlier_token };
  std::uint64_t stream = parameter;
  for (auto& tensor : run.parameter_table()) {
    const Philox numbers{.key = trial.seed, .stream = stream++};
    for (Index i = 0; i < tensor.shape.count(); ++i) {
      tensor.data[i] = static_cast<typename K::compute>(live_value(tensor, numbers, i));
    }
  }
  fill_centred(run.x, trial.seed, input);
  fill_tokens(run.tokens, sizes.vocab, trial.seed, token);
  fill_centred(run.dy, trial.seed, of_output);
  fill_centred(run.dlast, trial.seed, of_state);
  run.reset();
  if (trial.before > 0) {
    BlockRun<K, P> past(sizes, trial.batch, trial.before, run.device());
    past.parameters = run.parameters;
    past.first = run.first;
    fill_centred(past.x, trial.seed, earlier);
    fill_tokens(past.tokens, sizes.vocab, trial.seed, earlier_token);
    past.forward();
    run.first = past.last;
  }
}

/// The two sides of the law of adjoint_defect where only the numbers from `begin` on and before `end` move, of parameters,
/// inputs and first state one after the other. `run` has gone backwards.
template <class Run, class DualRun>
Pairing adjoint_pairing(const Run& run, DualRun& dual, std::uint64_t seed, Index begin, Index end) {
  dual.tokens = run.tokens;
  Pairing pairing;
  std::uint64_t stream = 0;
  Index place = 0;
  const auto perturb = [&](const std::vector<double>& at, const std::vector<double>& gradient,
                           std::vector<Dual<double>>& moving) {
    const auto u = centred_numbers(at.size(), ~seed, stream++);
    for (std::size_t i = 0; i < at.size(); ++i, ++place) {
      moving[i] = Dual<double>(at[i]);
      if (place < begin || place >= end) continue;
      moving[i].direction[0] = u[i];
      pairing.add_backwards(gradient[i], u[i]);
    }
  };
  perturb(run.parameters, run.dparameters, dual.parameters);
  perturb(run.x, run.dx, dual.x);
  perturb(run.first, run.dfirst, dual.first);
  dual.forward();
  const auto pair = [&](const std::vector<double>& cotangent, const std::vector<Dual<double>>& moved) {
    for (std::size_t i = 0; i < cotangent.size(); ++i) pairing.add_forwards(cotangent[i], moved[i].direction[0]);
  };
  pair(run.dy, dual.y);
  pair(run.dlast, dual.last);
  return pairing;
}

}  // namespace detail

/// How far a block's backward pass is from the adjoint of its forward pass. BlockOf<S> is the block with scalar S:
///
///     template <class S> using Mine = TimeMix<V4, S, Reference>;
///     adjoint_defect<Mine>({.width = 19}, {.time = 65}) < 1e-12
///
/// Inputs, first state and parameters move in a random direction u; outputs and last state get random cotangents. With
/// the exact derivative J u from dual numbers, <cotangent, J u> must equal <J^T cotangent, u>. Returns the difference
/// of the two sides, divided by the sum of the absolute values of their terms. BlockOf may be a Block, a Layer, a Chain
/// or a Stack; P is what layers keep. (g++ 12 confuses alias templates of the same name in unnamed namespaces of two
/// files: give them different names.)
template <template <class S> class BlockOf, class P = Keep>
double adjoint_defect(const ModelSizes& sizes, const LawTrial& trial = {},
                      typename BlockOf<double>::backend backend = {}) {
  BlockRun<BlockOf<double>, P> run(sizes, trial.batch, trial.time, backend);
  detail::draw(run, sizes, trial);
  run.forward_keeping();
  run.backward();
  BlockRun<BlockOf<Dual<double>>, P> dual(sizes, trial.batch, trial.time, backend);
  return detail::adjoint_pairing(run, dual, trial.seed, 0, std::numeric_limits<Index>::max()).defect();
}

/// The defect of one tensor's gradient.
struct TensorDefect {
  std::string name;   ///< of a parameter; "x" for the input; "state." and the name of a tensor of the first state
  double defect = 0;  ///< the defect of this tensor alone
};

/// Which gradients are wrong where adjoint_defect is large: the law for each tensor by itself, the others held still. The
/// largest defect comes first. A forward pass in dual numbers for each tensor.
template <template <class S> class BlockOf, class P = Keep>
std::vector<TensorDefect> adjoint_defects(const ModelSizes& sizes, const LawTrial& trial = {},
                                          typename BlockOf<double>::backend backend = {}) {
  BlockRun<BlockOf<double>, P> run(sizes, trial.batch, trial.time, backend);
  detail::draw(run, sizes, trial);
  run.forward_keeping();
  run.backward();
  BlockRun<BlockOf<Dual<double>>, P> dual(sizes, trial.batch, trial.time, backend);
  std::vector<TensorDefect> defects;
  Index begin = 0;
  const auto add = [&](const std::string& name, Index count) {
    const auto pairing = detail::adjoint_pairing(run, dual, trial.seed, begin, begin + count);
    defects.push_back({name, pairing.defect()});
    begin += count;
  };
  for (const auto& parameter : run.parameter_table()) add(parameter.name, parameter.shape.count());
  add("x", std::ssize(run.x));
  run.visit_state_tensors([&](const std::string& name, Index count) { add("state." + name, count); });
  std::ranges::stable_sort(defects, std::ranges::greater(), &TensorDefect::defect);
  return defects;
}

/// How much the gradients of a sequence differ between one pass over the whole and two passes over its parts: the first
/// `split` tokens, and the rest. The parts hand over the state forwards and its cotangent backwards. Returns the
/// largest difference in any parameter's gradient, in dx and in dfirst, each relative to its largest number.
template <class K, class P = Keep>
double split_defect(const ModelSizes& sizes, const LawTrial& trial, Index split, typename K::backend backend = {}) {
  using Numbers = typename BlockRun<K, P>::Numbers;
  BlockRun<K, P> whole(sizes, trial.batch, trial.time, backend);
  detail::draw(whole, sizes, trial);
  whole.forward_keeping();
  whole.backward();

  BlockRun<K, P> early(sizes, trial.batch, split, backend), late(sizes, trial.batch, trial.time - split, backend);
  // Calls visit(number of the whole, the same number of the part) for all numbers of a sequence, or all its tokens.
  const auto each = [&](auto& all, BlockRun<K, P>& part, auto& numbers, const auto& visit) {
    const Index width = std::ssize(all) / (trial.batch * trial.time), begin = &part == &early ? 0 : split;
    for (Index b = 0; b < trial.batch; ++b) {
      for (Index i = 0; i < part.time() * width; ++i) {
        visit(all[static_cast<std::size_t>((b * trial.time + begin) * width + i)],
              numbers[static_cast<std::size_t>(b * part.time() * width + i)]);
      }
    }
  };
  const auto take = [](auto from, auto& to) { to = from; };
  for (auto* part : {&early, &late}) {
    part->parameters = whole.parameters;
    each(whole.x, *part, part->x, take);
    each(whole.tokens, *part, part->tokens, take);
    each(whole.dy, *part, part->dy, take);
  }
  early.first = whole.first;
  early.forward_keeping();
  late.first = early.last;
  late.forward_keeping();
  late.dlast = whole.dlast;
  late.backward();
  early.dlast = late.dfirst;
  early.backward();

  Numbers dx = whole.dx, dparameters = early.dparameters;
  for (auto* part : {&early, &late}) each(dx, *part, part->dx, [](auto& to, auto from) { to = from; });
  for (std::size_t i = 0; i < dparameters.size(); ++i) dparameters[i] += late.dparameters[i];
  double worst = std::max(detail::difference(whole.dx, dx), detail::difference(whole.dfirst, early.dfirst));
  Index begin = 0;
  for (const auto& parameter : whole.parameter_table()) {
    const Index end = begin + parameter.shape.count();
    const auto part = [&](const Numbers& all) { return Numbers(all.begin() + begin, all.begin() + end); };
    worst = std::max(worst, detail::difference(part(whole.dparameters), part(dparameters)));
    begin = end;
  }
  return worst;
}

/// How far the adjoint of a channel cell's step is from the adjoint of its exact derivative: the worst over many states
/// and inputs, for the derived step_back and for the hand-written one if the cell has it. The states are states after a
/// few tokens; inputs reach from -spread to spread.
template <class Cell>
double cell_adjoint_defect(std::uint64_t seed = 1, double spread = 2) {
  static_assert(explain_recurrence<Cell>() && !RowCell<Cell>, "rwkv: cell_adjoint_defect takes channel cells");
  using R = One<double>;
  using D = Dual<R>;
  constexpr int states = Cell::state_size;
  constexpr int inputs = static_cast<int>(input_count<Cell>);
  double worst = 0;
  for (std::uint64_t trial = 0; trial < 100; ++trial) {
    std::uint64_t drawn = 0;
    const auto draw = [&] {
      const std::uint64_t n = drawn++;
      return 2 * Philox{.key = seed, .stream = trial}.block(n / 2).uniform_double(static_cast<int>(n % 2)) - 1;
    };
    R state[states], x[inputs];
    Cell::init(state);
    for (std::uint64_t token = 0; token <= trial % 4; ++token) {
      if (token > 0) static_cast<void>(Cell::step(state, static_cast<const R(&)[inputs]>(x)));
      for (auto& number : x) number = R(spread * draw());
    }
    const auto moving = [&](R at) {
      D number = D::variable(at, 0);
      number.direction[0] = R(draw());
      return number;
    };
    D moved[states], along[inputs];
    double u[states + inputs];
    for (int n = 0; n < states; ++n) u[n] = (moved[n] = moving(state[n])).direction[0].v;
    for (int i = 0; i < inputs; ++i) u[states + i] = (along[i] = moving(x[i])).direction[0].v;
    const D y = Cell::step(moved, static_cast<const D(&)[inputs]>(along));
    const R dy(draw());
    R dlast[states];
    for (auto& number : dlast) number = R(draw());

    const auto hold = [&](const auto& back) {
      R dstate[states], dx[inputs];
      std::copy(dlast, dlast + states, dstate);
      back(dstate, dx);
      detail::Pairing pairing;
      pairing.add_forwards(dy.v, y.direction[0].v);
      for (int n = 0; n < states; ++n) {
        pairing.add_forwards(dlast[n].v, moved[n].direction[0].v);
        pairing.add_backwards(dstate[n].v, u[n]);
      }
      for (int i = 0; i < inputs; ++i) pairing.add_backwards(dx[i].v, u[states + i]);
      worst = std::max(worst, pairing.defect());
    };
    hold([&](R(&dstate)[states], R(&dx)[inputs]) { step_back<Cell>(state, x, dy, dstate, dx); });
    hold([&](R(&dstate)[states], R(&dx)[inputs]) { derived_step_back<Cell>(state, x, dy, dstate, dx); });
  }
  return worst;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
