#pragma once
/// The adjoint of WKV4 as a function of all its inputs.
#include <rwkv/backend/rows_back.hpp>
#include <rwkv/blocks.hpp>

#include <vector>

#include "../configs.hpp"

namespace config {

/// The inputs and outputs of the adjoint of the recurrence of RWKV-4.
template <class T>
struct ChannelBack {
  using Cell = rwkv::WKV4;

  Index batch, time, width;
  Buffer<T> raw, u, k, v, dy, first, dlast;
  Buffer<T> draw{width}, du{width}, dk{batch * time * width}, dv = dk, dfirst{batch * 3 * width};

  template <class B, class Schedule>
  ChannelBack& run(B be, Schedule schedule) {
    const auto seq = [&](Buffer<T>& numbers) { return numbers.seq(batch, time, width); };
    const auto state = [&](Buffer<T>& numbers) { return rwkv::Mat<const T>(numbers.mat(batch, 3 * width)); };
    Buffer<T> w(width), dw(width);
    config::Scratch scratch(1 << 22);
    const auto dw_row = dw.seq(1, 1, width);
    be.rows(rwkv::NegativeExp{}, rwkv::arg::chan(raw.vec()), rwkv::arg::out(w.seq(1, 1, width)));
    be.recur_back(scratch.arena(), schedule, Cell{}, rwkv::Extent<3>{}, state(first), state(dlast),
                  dfirst.mat(batch, 3 * width), rwkv::arg::chan(w.vec()), rwkv::arg::chan(u.vec()),
                  rwkv::arg::in(seq(k)), rwkv::arg::in(seq(v)), rwkv::arg::cot(seq(dy)), rwkv::arg::sum(dw.vec()),
                  rwkv::arg::sum(du.vec()), rwkv::arg::out(seq(dk)), rwkv::arg::out(seq(dv)));
    rwkv::rows_back(be, scratch.arena(), rwkv::NegativeExp{}, rwkv::arg::chan(raw.vec()), rwkv::arg::cot(dw_row),
                    rwkv::arg::sum(draw.vec()));
    return *this;
  }
};

}  // namespace config
