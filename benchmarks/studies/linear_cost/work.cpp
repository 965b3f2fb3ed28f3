#include "work.hpp"

#include <algorithm>
#include <vector>

#include "../../synthetic.hpp"
#include "attention.hpp"
#include "lstm.hpp"
#include "rwkv/backend/scratch.hpp"

namespace linear_cost {
namespace {

using rwkv::Cpu;

/// The layers differ in the first of their two blocks alone.
template <class TimeMixing>
using LayerOf = rwkv::Layer<TimeMixing, rwkv::ChannelMix<rwkv::V7, float, Cpu>>;

template <class TimeMixing>
class LayerWork : public Work {
  using Net = LayerOf<TimeMixing>;
  using State = typename Net::State;

 public:
  LayerWork(Form form, Index tokens, int threads)
      : form_(form), cpu_(threads), net_(sizes_for(tokens), 0), grad_(net_),
        x_(bench::uniform<float>(tokens * layer_width, -1, 1, seed)), y_(x_.size()) {
    if (form == Form::sequence) stride = std::min(chunk, tokens);
    if (form == Form::training) stride = tokens;
    bench::FillParameters fill{.seed = seed};
    Net::visit(net_, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      bind(view, numbers(spec.shape.count()), spec.shape);
      fill(spec, view);
      parameters += spec.shape.count();
    });
    state_bytes = bind_state(state_);
    if (form == Form::training) {
      dy_ = bench::uniform<float>(tokens * layer_width, -1, 1, seed + 1);
      dx_.resize(dy_.size());
      Net::visit(grad_, "", [&](const rwkv::TensorSpec& spec, auto& view) {
        bind(view, numbers(spec.shape.count()), spec.shape);
      });
      for (State* state : {&first_, &dlast_, &dfirst_}) bind_state(*state);
      net_.reset(cpu_, first_);
    }
    scratch_ = rwkv::scratch_for(cpu_, [&](Arena ws) { run_in(ws, 0); });
    scratch_bytes = scratch_.bytes();
  }

  void reset() override { net_.reset(cpu_, state_); }
  void run(Index t) override { run_in(scratch_.arena(), t); }

 private:
  static rwkv::ModelSizes sizes_for(Index tokens) {
    return {.width = layer_width,
            .depth = 1,
            .head_size = layer_head_size,
            .ranks = {.w = 16, .a = 16, .v = 16, .g = 16},
            .window = tokens};
  }

  float* numbers(Index count) {
    memory_.emplace_back(static_cast<std::size_t>(count));
    return memory_.back().data();
  }
  Index bind_state(State& state) {
    Index bytes = 0;
    net_.visit_state(state, "", [&](const std::string&, Index count, Mat<float>& view) {
      view = rwkv::matrix(numbers(count), 1, count);
      bytes += count * Index{sizeof(float)};
    });
    return bytes;
  }

  /// `count` tokens of a sequence, from token t on.
  template <class T>
  static Seq<T> some(std::vector<float>& sequence, Index t, Index count) {
    return {sequence.data() + t * layer_width, 1, count, layer_width};
  }

  void run_in(Arena ws, Index t) {
    const Index count = std::min(stride, std::ssize(x_) / layer_width - t);
    const auto x = some<const float>(x_, t, count);
    const auto y = some<float>(y_, t, count);
    if (form_ != Form::training) return net_.forward(cpu_, ws, x, state_, y);
    typename Net::Tape tape;
    net_.forward(cpu_, ws, x, state_, y, tape);
    net_.backward(cpu_, ws, some<const float>(dy_, t, count), tape, first_, dlast_, some<float>(dx_, t, count), grad_,
                  dfirst_);
  }

  Form form_;
  Cpu cpu_;
  Net net_, grad_;
  State state_{}, first_{}, dlast_{}, dfirst_{};
  std::vector<float> x_, y_, dx_, dy_;
  std::vector<std::vector<float>> memory_;
  rwkv::Memory<Cpu> scratch_;
};

}  // namespace

std::unique_ptr<Work> make_work(Kind kind, Form form, Index tokens, int threads) {
  switch (kind) {
    case Kind::rwkv4: return std::make_unique<LayerWork<rwkv::TimeMix<rwkv::V4, float, Cpu>>>(form, tokens, threads);
    case Kind::rwkv7: return std::make_unique<LayerWork<rwkv::TimeMix<rwkv::V7, float, Cpu>>>(form, tokens, threads);
    case Kind::attention: return std::make_unique<LayerWork<Attention<float, Cpu>>>(form, tokens, threads);
    case Kind::lstm: break;
  }
  return std::make_unique<LayerWork<Lstm<float, Cpu>>>(form, tokens, threads);
}

}  // namespace linear_cost
