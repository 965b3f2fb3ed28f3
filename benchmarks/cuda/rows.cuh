#pragma once
/// What operations that are bound by memory are measured on: arrays of at least 64 MB.
#include "suite.cuh"

namespace bench {

/// Arrays that are no smaller than this.
inline constexpr Index least_bytes = Index{64} << 20;

/// Sequences of this width, in arrays of T that are large enough.
struct Shape {
  Index batch = 8, time, width;

  template <class T>
  static Shape with(Index width, Index batch = 8) {
    return {batch, (least_bytes / Index{sizeof(T)} + batch * width - 1) / (batch * width), width};
  }
  Index count() const { return batch * time * width; }
  std::string name() const { return by(batch, time, width); }
};

/// Some arrays of one shape, each in several sets.
template <class T>
class Arrays {
 public:
  Arrays(Cuda& be, const Shape& shape, Index arrays, Index sets)
      : shape_(shape), sets_(sets), numbers_(be, shape.count(), -1, 1, 1, arrays * sets) {}

  rwkv::Seq<T> operator()(Index array, Index set) const {
    return {numbers_.data(array * sets_ + set), shape_.batch, shape_.time, shape_.width};
  }

 private:
  Shape shape_;
  Index sets_;
  Numbers<T> numbers_;
};

/// Measures call(arena, arrays, set) that reads `reads` of the arrays and writes as many more as `writes`.
template <class T, class Call>
void passes(Suite& suite, const std::string& kernel, const Shape& shape, Index reads, Index writes, double goal,
            const Call& call, Index arrays = 0) {
  const double bytes = static_cast<double>(shape.count()) * sizeof(T);
  const Case what{kernel,
                  shape.name(),
                  number_name<T>(),
                  {.read = static_cast<double>(reads) * bytes, .written = static_cast<double>(writes) * bytes},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index used = arrays == 0 ? reads + writes : arrays;
    const Index sets = suite.sets(static_cast<double>(used) * bytes);
    const Arrays<T> all(be, shape, used, sets);
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, all, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), all, set); });
  });
}

/// Shares of the copy bandwidth.
inline constexpr double forward_goal = share(0.88), backward_goal = share(0.80);
}  // namespace bench
