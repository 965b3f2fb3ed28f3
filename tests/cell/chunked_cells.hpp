#pragma once
/// Row cells that declare their transition, and inputs for them.
#include <cmath>
#include <vector>

#include "../configs.hpp"

namespace config {

/// A user's own cell: linear attention with decay and without bonus, with its vectors in an order of its own.
struct LinearAttention {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr auto shared = rwkv::Inputs{"key", "query", "decay"};
  enum { key, query, decay };
  static constexpr rwkv::Diagonal transition{.read = query, .decay = decay, .write = key};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    R y(0);
    for (Index n = 0; n < state.size; ++n) {
      y += state[n] * head(query, n);
      state[n] = state[n] * head(decay, n) + x[0] * head(key, n);
    }
    return y;
  }
};

/// The same, but a token reads what it has written.
struct ReadsItself {
  static constexpr auto inputs = LinearAttention::inputs;
  static constexpr auto shared = LinearAttention::shared;
  enum { key, query, decay };
  static constexpr rwkv::Diagonal transition{
      .read = query, .decay = decay, .write = key, .reads = rwkv::Reads::after_update};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    R y(0);
    for (Index n = 0; n < state.size; ++n) {
      state[n] = state[n] * head(decay, n) + x[0] * head(key, n);
      y += state[n] * head(query, n);
    }
    return y;
  }
};

/// A transition of rank one that is read before the update.
struct ReadsFirst {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr auto shared = rwkv::Inputs{"b", "decay", "a", "query", "key"};
  enum { b, decay, a, query, key };
  static constexpr rwkv::DiagonalPlusRankOne transition{
      .read = query, .decay = decay, .write = key, .a = a, .b = b, .reads = rwkv::Reads::before_update};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    R removed(0), y(0);
    for (Index n = 0; n < state.size; ++n) {
      removed += state[n] * head(a, n);
      y += state[n] * head(query, n);
    }
    for (Index n = 0; n < state.size; ++n) {
      state[n] = state[n] * head(decay, n) + removed * head(b, n) + x[0] * head(key, n);
    }
    return y;
  }
};

enum class Decays { usual, extreme };

/// The value, then the shared vectors of a cell, all [batch, time, width]; the same numbers in every type.
template <class Cell, class T>
std::vector<Buffer<T>> random_inputs(Index batch, Index time, Index width, Index size, Decays decays) {
  const double small = 1 / std::sqrt(static_cast<double>(size));
  std::vector<Buffer<T>> inputs;
  for (std::size_t i = 0; i <= Cell::shared.size(); ++i) {
    std::vector<double> numbers = noise(batch * time * width, i + 1);
    const bool decay = i == Cell::decay + 1;
    for (double& x : numbers) x = decay ? 0.75 + x / 2 : i == 0 ? x : x * 2 * small;
    if (decay && decays == Decays::extreme) {
      const double of_large_key = std::exp(-std::exp(5.0));
      for (std::size_t n = 0; n < numbers.size(); ++n) {
        switch (n % 7) {
          case 0: numbers[n] = 0; break;
          case 2: numbers[n] = 1; break;
          case 3: numbers[n] = of_large_key; break;
          case 5: numbers[n] = std::exp(-std::exp(-8.0)); break;
          default: break;
        }
      }
    }
    for (double& x : numbers) x = static_cast<double>(static_cast<float>(x));  // the same numbers in both types
    inputs.emplace_back(numbers);
  }
  return inputs;
}

}  // namespace config
