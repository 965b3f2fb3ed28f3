/// Layer norm and group norm, their adjoints, and a user's row program that adds the residual too.
#include "rwkv/op/norm.hpp"

#include "rows.cuh"

namespace bench {

namespace arg = rwkv::arg;

/// s = x + r, y = its layer norm: the end of one block and the start of the next.
struct SumNormalise : rwkv::Normalise {
  template <class R, class... Rest>
  RWKV_HD void reduce(rwkv::Stage<0>, const R*, R* terms, R x, R r, const Rest&...) const {
    terms[0] = x + r;
  }
  template <class R, class... Rest>
  RWKV_HD void reduce(rwkv::Stage<1>, const R* totals, R* terms, R x, R r, const Rest&...) const {
    const R rest = x + r - totals[0] * R(per_channel);
    terms[0] = rest;
    terms[1] = rest * rest;
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R r, R scale, R shift, R& s, R& y) const {
    s = x + r;
    y = (s - totals[0]) * totals[1] * scale + shift;
  }
};

namespace {

constexpr double epsilon = 1e-5;

template <class T>
void norms(Suite& suite, Index width) {
  Cuda& be = suite.backend();
  const Shape shape = Shape::with<T>(width);
  const Numbers<float> scale(be, width, 0.5f, 1.5f, 1), shift(be, width, -0.1f, 0.1f, 2), dscale(be, width, -1, 1, 3),
      dshift(be, width, -1, 1, 4);
  passes<T>(suite, "layer norm", shape, 1, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    rwkv::layer_norm(be, all(0, set), scale.channels(), shift.channels(), epsilon, all(1, set));
  });
  passes<T>(suite, "layer norm back", shape, 2, 1, backward_goal, [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
    rwkv::layer_norm_back(be, ws, all(0, set), scale.vector(), epsilon, all(1, set), arg::out(all(2, set)),
                          dscale.vector(), dshift.vector());
  });
  passes<T>(suite, "residual + layer norm", shape, 2, 2, forward_goal,
            [&](rwkv::Arena, const Arrays<T>& all, Index set) {
              be.rows(SumNormalise{{1, 1.0 / static_cast<double>(width), epsilon}}, arg::in(all(0, set)),
                      arg::in(all(1, set)), arg::chan(scale.channels()), arg::chan(shift.channels()),
                      arg::out(all(2, set)), arg::out(all(3, set)));
            });
  const Index groups = width / 64;
  passes<T>(suite, "group norm", shape, 1, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    rwkv::group_norm(be, all(0, set), groups, scale.channels(), shift.channels(), epsilon, all(1, set));
  });
  passes<T>(suite, "group norm back", shape, 2, 1, backward_goal, [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
    rwkv::group_norm_back(be, ws, all(0, set), groups, scale.vector(), epsilon, all(1, set), arg::out(all(2, set)),
                          dscale.vector(), dshift.vector());
  });
}

}  // namespace

void add_norms(Suite& suite) {
  norms<rwkv::bf16>(suite, 4096);
  norms<float>(suite, 4096);
  if (!suite.quick()) norms<float>(suite, 768);
}

}  // namespace bench
