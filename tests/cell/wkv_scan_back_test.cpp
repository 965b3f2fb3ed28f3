/// Oracle: the sequential backward pass of the reference backend.
#include <doctest/doctest.h>

#include <cmath>

#include "../numbers.hpp"
#include "wkv_back.hpp"

using namespace rwkv;
using config::Buffer;
using config::ChannelBack;

namespace {

std::vector<double> noise(Index count, double size, std::uint64_t seed) {
  std::vector<double> x;
  for (Index i = 0; i < count; ++i) {
    x.push_back(size * (2 * Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0) - 1));
  }
  return x;
}

/// A random case in the middle of a text: the first state is not empty.
template <class T>
ChannelBack<T> made_up(Index batch, Index time, Index width, double key_size) {
  const Index count = batch * time * width;
  ChannelBack<T> back{batch,
                      time,
                      width,
                      Buffer<T>(noise(width, 3, 1)),
                      Buffer<T>(noise(width, 1, 2)),
                      Buffer<T>(noise(count, key_size, 3)),
                      Buffer<T>(noise(count, 1, 4)),
                      Buffer<T>(noise(count, 1, 5)),
                      Buffer<T>(noise(batch * 3 * width, 1, 6)),
                      Buffer<T>(noise(batch * 3 * width, 1, 7))};
  for (Index b = 0; b < batch; ++b) {
    for (Index c = 0; c < width; ++c) back.first[(b * 3 + 1) * width + c] += T(1.5);  // the denominator is positive
  }
  return back;
}

}  // namespace

#ifndef RWKV_TEST_CUDA
TEST_CASE_TEMPLATE("the backward pass as a scan equals the backward pass in sequence", T, float, double) {
  const double limit = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  for (const Index width : {1, 7, 19, 70}) {
    for (const Index time : {64, 65, 128, 400}) {
      for (const double key_size : {2.0, 30.0}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(key_size);
        const auto want = made_up<double>(2, time, width, key_size).run(Reference(), Sequential{});
        const auto sequence = made_up<T>(2, time, width, key_size).run(Cpu(1), Sequential{});
        for (const Index chunk : {1, 64, 100, 128}) {
          CAPTURE(chunk);
          const auto scan = made_up<T>(2, time, width, key_size).run(Cpu(2), Scan{chunk});
          for (const auto part : {&ChannelBack<T>::draw, &ChannelBack<T>::du, &ChannelBack<T>::dk, &ChannelBack<T>::dv,
                                  &ChannelBack<T>::dfirst}) {
            CHECK(golden::relative_error((scan.*part).numbers, (sequence.*part).numbers) < limit);
          }
          CHECK(golden::relative_error(scan.dk.numbers, want.dk.numbers) < limit);
          CHECK(golden::relative_error(scan.dfirst.numbers, want.dfirst.numbers) < limit);
          CHECK(golden::relative_error(scan.draw.numbers, want.draw.numbers) < limit);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("the backward pass has the same bits on any number of threads", T, float, double) {
  for (const Index width : {3, 45, 130}) {
    const auto one = made_up<T>(2, 300, width, 3).run(Cpu(1), Sequential{});
    const auto one_scan = made_up<T>(2, 300, width, 3).run(Cpu(1), Scan{64});
    for (const int threads : {2, 3, 5}) {
      CAPTURE(width);
      CAPTURE(threads);
      const auto more = made_up<T>(2, 300, width, 3).run(Cpu(threads), Sequential{});
      const auto more_scan = made_up<T>(2, 300, width, 3).run(Cpu(threads), Scan{64});
      for (const auto part : {&ChannelBack<T>::draw, &ChannelBack<T>::du, &ChannelBack<T>::dk, &ChannelBack<T>::dv,
                              &ChannelBack<T>::dfirst}) {
        CHECK((more.*part).numbers == (one.*part).numbers);
        CHECK((more_scan.*part).numbers == (one_scan.*part).numbers);
      }
    }
  }
}
#endif

TEST_CASE_TEMPLATE("from an empty state with no cotangent behind, the gradients of the keys cancel", C,
                   RWKV_TEST_CONFIGS) {
  // Adding the same number to all keys of a channel changes no output.
  using T = typename C::scalar;
  const Index width = 19, time = 100;
  auto back = made_up<T>(1, time, width, 3);
  for (Index c = 0; c < width; ++c) {
    back.first[c] = back.first[width + c] = T(0);
    back.first[2 * width + c] = T(-1e38);
    back.dlast[c] = back.dlast[width + c] = T(0);
  }
  back.run(C::backend(), Sequential{});
  for (Index c = 0; c < width; ++c) {
    double sum = 0, size = 0;
    for (Index t = 0; t < time; ++t) {
      sum += static_cast<double>(back.dk[t * width + c]);
      size += std::abs(static_cast<double>(back.dk[t * width + c]));
    }
    CHECK(std::abs(sum) < (std::is_same_v<T, double> ? 1e-13 : 1e-5) * size);
  }
}
