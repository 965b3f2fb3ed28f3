#pragma once
// The task: digits, a comma, the same digits from last to first, an end sign.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <span>
#include <vector>

#include "../draws.hpp"

namespace example {

using namespace rwkv;

// Tokens 0 to 9 are the digits.
inline constexpr Token comma = 10, end_sign = 11;
inline constexpr Index vocabulary = 12;

/// The digits of a number that is uniform among all of so many digits.
inline std::vector<Token> draw_number(Draws& draws, Index digits) {
  std::vector<Token> drawn;
  drawn.push_back(digits == 1 ? draws.below(10) : 1 + draws.below(9));  // no zero leads, unless it stands alone
  while (std::ssize(drawn) < digits) drawn.push_back(draws.below(10));
  return drawn;
}

/// Batches of the task. Each sequence is filled with examples, one after the other, and cut at its end. A number has 1
/// to `most` digits, each count as often as any other.
struct Reversals {
  Index most;
  BatchShape shape;
  Seed seed;

  /// The batch of a step depends on the seed and the step alone.
  void fill(Index step, Batch& batch) const {
    batch.shape = shape;
    batch.tokens.clear();
    batch.targets.clear();
    for (Index row = 0; row < shape.batch; ++row) {
      Draws draws(seed, "training", step * shape.batch + row);
      std::vector<Token> text;
      while (std::ssize(text) <= shape.length) {
        const std::vector<Token> number = draw_number(draws, 1 + draws.below(most));
        text.insert(text.end(), number.begin(), number.end());
        text.push_back(comma);
        text.insert(text.end(), number.rbegin(), number.rend());
        text.push_back(end_sign);
      }
      batch.tokens.insert(batch.tokens.end(), text.begin(), text.begin() + shape.length);
      batch.targets.insert(batch.targets.end(), text.begin() + 1, text.begin() + 1 + shape.length);
    }
  }
};

/// What a model made of some numbers.
struct Score {
  Index numbers = 0, digits = 0;              ///< asked for
  Index wrong_numbers = 0, wrong_digits = 0;  ///< a number is also wrong when it does not end where it should

  Score& operator+=(const Score& other) {
    numbers += other.numbers;
    digits += other.digits;
    wrong_numbers += other.wrong_numbers;
    wrong_digits += other.wrong_digits;
    return *this;
  }
  double part_of_wrong_digits() const { return static_cast<double>(wrong_digits) / static_cast<double>(digits); }
  double part_of_wrong_numbers() const { return static_cast<double>(wrong_numbers) / static_cast<double>(numbers); }
};

/// Reads numbers of so many digits and the comma, then lets the model write: it reads its own most likely tokens, right
/// or wrong. The numbers have nothing in common with those of training but the seed.
template <class Net>
Score check(const Net& net, Seed seed, Index digits, Index count) {
  Draws draws(seed, "checking", digits);
  std::vector<std::vector<Token>> numbers;
  for (Index i = 0; i < count; ++i) numbers.push_back(draw_number(draws, digits));

  auto context = net.context({.batch = count});
  std::vector<Token> tokens(numbers.size());
  for (std::size_t position = 0; position < numbers[0].size(); ++position) {
    for (std::size_t i = 0; i < numbers.size(); ++i) tokens[i] = numbers[i][position];
    context.step(tokens);
  }
  std::fill(tokens.begin(), tokens.end(), comma);

  Score score{.numbers = count, .digits = count * digits};
  std::vector<bool> wrong(numbers.size());
  for (Index position = digits - 1; position >= -1; --position) {
    const auto logits = context.step(tokens);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto of_one = logits.subspan(i * vocabulary, vocabulary);
      tokens[i] = static_cast<Token>(std::max_element(of_one.begin(), of_one.end()) - of_one.begin());
      const bool ends = position < 0;
      if (tokens[i] == (ends ? end_sign : numbers[i][static_cast<std::size_t>(position)])) continue;
      wrong[i] = true;
      if (!ends) ++score.wrong_digits;
    }
  }
  score.wrong_numbers = std::count(wrong.begin(), wrong.end(), true);
  return score;
}

}  // namespace example
