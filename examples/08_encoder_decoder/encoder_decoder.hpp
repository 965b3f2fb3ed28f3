#pragma once
// Two stacks with a state between them, and a time mix that reads in both directions: bodies and blocks of one's own.
#include <rwkv/blocks.hpp>

#include <string>
#include <vector>

namespace example {

using namespace rwkv;

/// Copies tokens [begin, begin + y.time) of every sequence of x to y, or with exchanged roles of y to x.
template <class B, class T, Index W, class U, Index V>
void copy_tokens(B& be, Seq<T, W> x, Index begin, Seq<U, V> y) {
  const Index numbers = y.time * y.width, all = x.time * x.width;
  be.copy(Mat<T>{x.data == nullptr ? nullptr : x.row(0, begin), x.batch, numbers, all},
          Mat<U>{y.data, y.batch, numbers, numbers});
}
template <class B, class T, Index W, class U, Index V>
void copy_tokens(B& be, Seq<T, W> x, Seq<U, V> y, Index begin) {
  const Index numbers = x.time * x.width, all = y.time * y.width;
  be.copy(Mat<T>{x.data, x.batch, numbers, numbers},
          Mat<U>{y.data == nullptr ? nullptr : y.row(0, begin), y.batch, numbers, all});
}

/// y = x with time reversed.
template <class B, class T, Index W, class U, Index V>
void reverse(B& be, Seq<T, W> x, Seq<U, V> y) {
  for (Index t = 0; t < x.time; ++t) be.copy(x.at(t), y.at(x.time - 1 - t));
}

/// A time mix from the first token to the last, and another from the last to the first; their results are added. It
/// reads a sequence as a whole, so it is for encoders: a token sees those behind it as well.
template <class TimeMixing>
class Bidirectional {
 public:
  using backend = typename TimeMixing::backend;
  using compute = typename TimeMixing::compute;
  using storage = typename TimeMixing::storage;
  static constexpr Index Width = TimeMixing::Width;

  struct State {
    typename TimeMixing::State onwards, backwards;
  };
  struct Tape {
    typename TimeMixing::Tape onwards, backwards;
  };

  TimeMixing onwards, backwards;

  Bidirectional(const ModelSizes& sizes, Index layer) : onwards(sizes, layer), backwards(sizes, layer) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               Tape& tape) const {
    const auto reversed = ws.like<compute>(x, x.width), back = ws.like<compute>(x, x.width);
    onwards.forward(be, ws, x, state.onwards, y, tape.onwards);
    reverse(be, x, reversed);
    backwards.forward(be, ws, reversed, state.backwards, back, tape.backwards);
    add_reversed(be, ws, back, y);
  }

  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, Bidirectional& grad, State& dfirst) const {
    const auto reversed = ws.like<compute>(dy, dy.width), back = ws.like<compute>(dy, dy.width);
    onwards.backward(be, ws, dy, tape.onwards, first.onwards, dlast.onwards, dx, grad.onwards, dfirst.onwards);
    reverse(be, dy, reversed);
    backwards.backward(be, ws, reversed, tape.backwards, first.backwards, dlast.backwards, back, grad.backwards,
                       dfirst.backwards);
    add_reversed(be, ws, back, dx);
  }

  void reset(backend& be, State& state) const {
    onwards.reset(be, state.onwards);
    backwards.reset(be, state.backwards);
  }
  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    TimeMixing::visit(self.onwards, prefix + "onwards.", visitor);
    TimeMixing::visit(self.backwards, prefix + "backwards.", visitor);
  }
  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    onwards.visit_state(state.onwards, prefix + "onwards.", visitor);
    backwards.visit_state(state.backwards, prefix + "backwards.", visitor);
  }

 private:
  static void add_reversed(backend& be, Arena ws, Seq<const compute, Width> x, Seq<compute, Width> y) {
    const auto reversed = ws.like<compute>(x, x.width);
    reverse(be, x, reversed);
    be.rows(Copy{}, arg::in(reversed), arg::add(y));
  }
};

/// An encoder and a decoder as the body of a model. The decoder starts from the state that the encoder ends in: the state
/// stands where a transformer has cross-attention.
///
/// The first Source tokens of a sequence are the source: they pass Reader and the encoder. All later tokens pass the
/// decoder. The first call has the whole source and at least one token more, so a context needs a chunk above Source.
template <class Reader, class Coder, Index Source>
class EncoderDecoder {
 public:
  using backend = typename Coder::backend;
  using compute = typename Coder::compute;
  using storage = typename Coder::storage;
  static constexpr Index Width = Coder::Width;
  static constexpr Index layers = Reader::layers + 2 * Coder::layers;

  struct State {
    typename Reader::State reader;
    typename Coder::State encoder, decoder;
    Mat<compute> has_source;  // [batch, 1], 1 behind the source
  };
  template <class P>
  struct TapeFor {
    tape_t<Reader, P> reader;
    tape_t<Coder, P> encoder, decoder;
    typename Coder::State bridge;  // where the decoder started
  };
  using Tape = TapeFor<Keep>;

  Reader reader;
  Coder encoder, decoder;

  explicit EncoderDecoder(const ModelSizes& sizes, Index layer = 0)
      : reader(sizes, layer), encoder(sizes, layer + Reader::layers),
        decoder(sizes, layer + Reader::layers + Coder::layers) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    if (x.time <= Source || (!be.dry && state.has_source(0, 0) != compute(0))) {
      expects(be.dry || state.has_source(0, 0) != compute(0), "a first call of ", x.time, " tokens has no source of ",
              Source, " and a token behind it");
      return decoder.forward(be, ws, x, state.decoder, y);
    }
    const auto source = part_of(ws, x, Source), target = part_of(ws, x, x.time - Source);
    copy_tokens(be, x, 0, source);
    copy_tokens(be, x, Source, target);
    reader.forward(be, ws, source, state.reader, source);
    encoder.forward(be, ws, source, state.encoder, source);
    copy_state(be, state.encoder, state.decoder);
    decoder.forward(be, ws, target, state.decoder, target);
    be.fill(state.has_source, compute(1));
    copy_tokens(be, source, y, 0);
    copy_tokens(be, target, y, Source);
  }

  template <class P>
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    expects(x.time > Source, "a sequence of ", x.time, " tokens has nothing behind a source of ", Source);
    const Index later = x.time - Source;
    const auto source = part_of(ws, x, Source), read = part_of(ws, x, Source), encoded = part_of(ws, x, Source);
    const auto target = part_of(ws, x, later), decoded = part_of(ws, x, later);
    tape.bridge = state_in(ws, x.batch);
    copy_tokens(be, x, 0, source);
    copy_tokens(be, x, Source, target);
    reader.forward(be, ws, source, state.reader, read, tape.reader);
    encoder.forward(be, ws, read, state.encoder, encoded, tape.encoder);
    copy_state(be, state.encoder, tape.bridge);
    copy_state(be, state.encoder, state.decoder);
    decoder.forward(be, ws, target, state.decoder, decoded, tape.decoder);
    be.fill(state.has_source, compute(1));
    copy_tokens(be, encoded, y, 0);
    copy_tokens(be, decoded, y, Source);
  }

  /// dx may be dy.
  template <class P>
  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const TapeFor<P>& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, EncoderDecoder& grad, State& dfirst) const {
    const auto dsource = part_of(ws, dy, Source), dtarget = part_of(ws, dy, dy.time - Source);
    copy_tokens(be, dy, 0, dsource);
    copy_tokens(be, dy, Source, dtarget);
    decoder.backward(be, ws, dtarget, tape.decoder, tape.bridge, dlast.decoder, dtarget, grad.decoder, dfirst.decoder);
    // What comes out of the front of the decoder goes into the back of the encoder.
    auto dbridge = state_in(ws, dy.batch);
    copy_state(be, dlast.encoder, dbridge);
    each_pair(dfirst.decoder, dbridge, [&](Mat<compute> from, Mat<compute> to) {
      be.rows(Copy{}, arg::in(as_tokens(from)), arg::add(as_tokens(to)));
      be.fill(from, compute(0));
    });
    encoder.backward(be, ws, dsource, tape.encoder, first.encoder, dbridge, dsource, grad.encoder, dfirst.encoder);
    reader.backward(be, ws, dsource, tape.reader, first.reader, dlast.reader, dsource, grad.reader, dfirst.reader);
    be.fill(dfirst.has_source, compute(0));
    copy_tokens(be, dsource, dx, 0);
    copy_tokens(be, dtarget, dx, Source);
  }

  void reset(backend& be, State& state) const {
    reader.reset(be, state.reader);
    encoder.reset(be, state.encoder);
    decoder.reset(be, state.decoder);
    be.fill(state.has_source, compute(0));
  }
  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    Reader::visit(self.reader, prefix, visitor);
    Coder::visit(self.encoder, prefix, visitor);
    Coder::visit(self.decoder, prefix, visitor);
  }
  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    reader.visit_state(state.reader, prefix, visitor);
    encoder.visit_state(state.encoder, prefix, visitor);
    decoder.visit_state(state.decoder, prefix, visitor);
    visitor(prefix + "has_source", Index{1}, state.has_source);
  }

 private:
  template <class T>
  static Seq<compute, Width> part_of(Arena& ws, Seq<T, Width> x, Index time) {
    return {ws.take<compute>(x.batch * time * x.width), x.batch, time, x.width};
  }
  static Seq<compute> as_tokens(Mat<compute> m) { return {m.data, m.rows, 1, Index(m.cols)}; }

  /// The state of a coder, in the arena.
  typename Coder::State state_in(Arena& ws, Index batch) const {
    auto state = make_state(encoder);
    encoder.visit_state(state, std::string(), [&](const std::string&, Index numbers, Mat<compute>& view) {
      view = matrix(ws.take<compute>(batch * numbers), batch, numbers);
    });
    return state;
  }
  /// Calls call(a, b) for the tensors of two states of a coder.
  template <class Call>
  void each_pair(typename Coder::State a, typename Coder::State b, const Call& call) const {
    std::vector<Mat<compute>> tensors;
    encoder.visit_state(a, std::string(),
                        [&](const std::string&, Index, Mat<compute>& view) { tensors.push_back(view); });
    auto next = tensors.begin();
    encoder.visit_state(b, std::string(), [&](const std::string&, Index, Mat<compute>& view) { call(*next++, view); });
  }
  void copy_state(backend& be, const typename Coder::State& from, const typename Coder::State& to) const {
    each_pair(from, to, [&](Mat<compute> source, Mat<compute> target) { be.copy(source, target); });
  }
};

}  // namespace example
