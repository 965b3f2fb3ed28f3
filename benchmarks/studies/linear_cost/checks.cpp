#include "checks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "attention.hpp"
#include "lstm.hpp"
#include "rwkv/check/adjoint.hpp"
#include "shifted.hpp"

namespace linear_cost {
namespace {

using Numbers = std::vector<double>;

template <class S>
using CheckedAttention = Attention<S, rwkv::Cpu>;
template <class S>
using CheckedShifted = Shifted<CheckedAttention<S>>;
template <class S>
using CheckedLstm = Lstm<S, rwkv::Cpu>;

/// More tokens than a block of queries has, more keys than fit a block of scores beside them.
constexpr rwkv::LawTrial trial{.batch = 2, .time = 131, .before = 230, .seed = 5};
constexpr rwkv::ModelSizes sizes{.width = 32, .head_size = 8, .window = 367};

void expect_below(const char* what, double error, double most) {
  std::printf("%-66s %.1e\n", what, error);
  rwkv::expects(error <= most, what, ": ", error, " is more than ", most);
}

double largest_difference(const Numbers& a, const Numbers& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

/// The rows of a matrix [out, in] times a vector.
Numbers times(const double* matrix, const Numbers& x, Index out) {
  Numbers y(static_cast<std::size_t>(out));
  for (auto& sum : y) {
    for (const double number : x) sum += *matrix++ * number;
  }
  return y;
}

/// The formula of attention, token by token; `parameters` are W_q, W_k, W_v and W_o.
Numbers plain(const CheckedAttention<double>& block, const double* parameters, const Numbers& x) {
  const Index width = block.dims.width, size = block.dims.head_size();
  const auto channels = static_cast<std::size_t>(width);
  std::vector<Numbers> keys, values;
  Numbers all;
  for (auto token = x.begin(); token != x.end(); token += width) {
    const Numbers now(token, token + width);
    const Numbers query = times(parameters, now, width);
    keys.push_back(times(parameters + width * width, now, width));
    values.push_back(times(parameters + 2 * width * width, now, width));
    Numbers heads(channels);
    for (Index head = 0; head < width; head += size) {
      Numbers scores;
      for (const Numbers& key : keys) {
        double score = 0;
        for (auto c = static_cast<std::size_t>(head); c < static_cast<std::size_t>(head + size); ++c) {
          score += query[c] * key[c];
        }
        scores.push_back(score / std::sqrt(static_cast<double>(size)));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double total = 0;
      for (auto& score : scores) total += score = std::exp(score - largest);
      for (auto c = static_cast<std::size_t>(head); c < static_cast<std::size_t>(head + size); ++c) {
        for (std::size_t j = 0; j < scores.size(); ++j) heads[c] += scores[j] / total * values[j][c];
      }
    }
    const Numbers y = times(parameters + 3 * width * width, heads, width);
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

/// The formula of the LSTM, token by token; `parameters` are W, U, b and W_o.
Numbers plain(const CheckedLstm<double>& block, const double* parameters, const Numbers& x) {
  const Index width = block.dims.width, hidden = block.hidden;
  const double* const recurrent = parameters + 4 * hidden * width;
  const double* const bias = recurrent + 4 * hidden * hidden;
  const double* const output = bias + 4 * hidden;
  const auto units = static_cast<std::size_t>(hidden);
  const auto logistic = [](double sum) { return 1 / (1 + std::exp(-sum)); };
  Numbers h(units), c(units), all;
  for (auto token = x.begin(); token != x.end(); token += width) {
    Numbers sums = times(parameters, Numbers(token, token + width), 4 * hidden);
    const Numbers by_h = times(recurrent, h, 4 * hidden);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += by_h[i] + bias[i];
    for (std::size_t i = 0; i < units; ++i) {
      c[i] = logistic(sums[units + i]) * c[i] + logistic(sums[i]) * std::tanh(sums[2 * units + i]);
      h[i] = logistic(sums[3 * units + i]) * std::tanh(c[i]);
    }
    const Numbers y = times(output, h, width);
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

/// The same behind a token shift; the mix comes before the other parameters.
Numbers plain(const CheckedShifted<double>& block, const double* parameters, Numbers x) {
  const auto width = static_cast<std::size_t>(block.inner.dims.width);
  for (std::size_t i = x.size(); i-- > 0;) {
    const double mix = parameters[i % width], before = i < width ? 0 : x[i - width];
    x[i] = x[i] * mix + before * (1 - mix);
  }
  return plain(block.inner, parameters + width, x);
}

/// Compares a sequence in two parts, and token by token, with the plain evaluation.
template <class K>
void check_forward(const char* in_parts, const char* in_steps) {
  const Index all = trial.before + trial.time, width = sizes.width;
  const rwkv::Cpu cpu(2);
  rwkv::BlockRun<K> whole(sizes, trial.batch, all, cpu);
  rwkv::detail::draw(whole, sizes, {.batch = trial.batch, .time = all, .before = 0, .seed = trial.seed});
  Numbers wanted;
  for (Index b = 0; b < trial.batch; ++b) {
    const auto x = whole.x.begin() + b * all * width;
    const Numbers y = plain(K(sizes, 0), whole.parameters.data(), Numbers(x, x + all * width));
    wanted.insert(wanted.end(), y.begin(), y.end());
  }
  const auto error = [&](const std::vector<Index>& lengths) {
    Numbers got(wanted.size()), state = whole.first;
    Index begin = 0;
    for (const Index length : lengths) {
      rwkv::BlockRun<K> part(sizes, trial.batch, length, cpu);
      part.parameters = whole.parameters;
      part.first = state;
      for (Index b = 0; b < trial.batch; ++b) {
        std::copy_n(whole.x.begin() + (b * all + begin) * width, length * width, part.x.begin() + b * length * width);
      }
      part.forward();
      for (Index b = 0; b < trial.batch; ++b) {
        std::copy_n(part.y.begin() + b * length * width, length * width, got.begin() + (b * all + begin) * width);
      }
      state = part.last;
      begin += length;
    }
    return largest_difference(got, wanted);
  };
  expect_below(in_parts, error({trial.before, trial.time}), 1e-9);
  expect_below(in_steps, error(std::vector<Index>(static_cast<std::size_t>(all), 1)), 1e-9);
}

/// How far a gradient is from differences of the loss <dy, y> + <dlast, last> along a random direction, of the size of
/// the loss. The differences are central, of fourth order.
template <class K>
double difference_defect() {
  rwkv::BlockRun<K> run(sizes, trial.batch, trial.time, rwkv::Cpu(2));
  rwkv::detail::draw(run, sizes, trial);
  run.forward_keeping();
  run.backward();
  const std::pair<Numbers*, const Numbers*> inputs[] = {
      {&run.parameters, &run.dparameters}, {&run.x, &run.dx}, {&run.first, &run.dfirst}};
  std::vector<Numbers> at, direction;
  double slope = 0;
  for (const auto& [numbers, gradient] : inputs) {
    at.push_back(*numbers);
    Numbers along = rwkv::detail::centred_numbers(numbers->size(), trial.seed, 100 + at.size());
    // The number of tokens in a cache does not move.
    for (Index b = 0; numbers == &run.first && std::is_same_v<K, CheckedAttention<double>> && b < trial.batch; ++b) {
      along[static_cast<std::size_t>(b)] = 0;
    }
    for (std::size_t i = 0; i < along.size(); ++i) slope += along[i] * (*gradient)[i];
    direction.push_back(along);
  }
  const auto loss = [&](double distance) {
    for (std::size_t n = 0; n < at.size(); ++n) {
      for (std::size_t i = 0; i < at[n].size(); ++i) (*inputs[n].first)[i] = at[n][i] + distance * direction[n][i];
    }
    run.forward();
    double sum = 0;
    for (std::size_t i = 0; i < run.y.size(); ++i) sum += run.dy[i] * run.y[i];
    for (std::size_t i = 0; i < run.last.size(); ++i) sum += run.dlast[i] * run.last[i];
    return sum;
  };
  const double h = 3e-4;
  const double difference = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
  return std::abs(difference - slope) / std::max(1.0, std::abs(slope));
}

}  // namespace

void check_blocks() {
  check_forward<CheckedAttention<double>>("attention in two parts, against its formula",
                                          "attention step by step, against its formula");
  check_forward<CheckedShifted<double>>("attention behind a token shift in two parts, against its formula",
                                        "attention behind a token shift step by step, against its formula");
  check_forward<CheckedLstm<double>>("LSTM in two parts, against its formula",
                                     "LSTM step by step, against its formula");
  expect_below("attention, gradient against finite differences", difference_defect<CheckedAttention<double>>(), 1e-9);
  expect_below("LSTM, gradient against finite differences", difference_defect<CheckedLstm<double>>(), 1e-9);
  expect_below("attention, adjoint against the derivative by dual numbers",
               rwkv::adjoint_defect<CheckedAttention>(sizes, trial, rwkv::Cpu(2)), 1e-12);
  expect_below("attention behind a token shift, adjoint by dual numbers",
               rwkv::adjoint_defect<CheckedShifted>(sizes, trial, rwkv::Cpu(2)), 1e-12);
  expect_below("LSTM, adjoint against the derivative by dual numbers",
               rwkv::adjoint_defect<CheckedLstm>(sizes, trial, rwkv::Cpu(2)), 1e-12);
}

}  // namespace linear_cost
