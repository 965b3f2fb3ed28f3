#pragma once
/// How far apart two lists of numbers are.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <vector>

namespace golden {

/// max |got - want|, infinite when a number is not finite or the lengths differ.
template <class Got, class Want>
double max_error(const Got& got, const Want& want) {
  if (std::size(got) != std::size(want)) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < std::size(want); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

/// max |got - want| / max |want|.
template <class Got, class Want>
double relative_error(const Got& got, const Want& want) {
  double scale = 1e-300;
  for (const auto& w : want) scale = std::max(scale, std::abs(static_cast<double>(w)));
  return max_error(got, want) / scale;
}

/// Matrices [rows, cols], one after the other, with their axes exchanged.
template <class T, class Size>
std::vector<T> transposed(const std::vector<T>& numbers, Size rows, Size cols) {
  const auto height = static_cast<std::size_t>(rows), width = static_cast<std::size_t>(cols);
  std::vector<T> turned(numbers.size());
  for (std::size_t begin = 0; begin < numbers.size(); begin += height * width) {
    for (std::size_t i = 0; i < height * width; ++i) {
      turned[begin + i % width * height + i / width] = numbers[begin + i];
    }
  }
  return turned;
}

}  // namespace golden
