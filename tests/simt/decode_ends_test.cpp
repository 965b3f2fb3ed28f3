/// Embedding and head of a step, and with them the products of a step, in every number type. Oracle: the generic path in
/// double.
#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "decode.hpp"

using namespace decode;

TEST_CASE_TEMPLATE("simt: embedding and head at one token", S, float, double, rwkv::bf16, rwkv::f16) {
  using T = rwkv::compute_t<S>;
  const double bound = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  for (const Index width : {1, 33, 64}) {
    for (const Index batch : {1, 2, 8, 9}) {
      CAPTURE(width);
      CAPTURE(batch);
      const rwkv::ModelSizes sizes{.vocab = 50, .width = width, .depth = 1};
      Runner<rwkv::Embedding<S, Gpu>> embedding(sizes);
      Runner<rwkv::Embedding<double, rwkv::Reference>> want_embedding(sizes);
      Runner<rwkv::Head<S, Gpu>> head(sizes, embedding.be);
      Runner<rwkv::Head<double, rwkv::Reference>> want_head(sizes);

      rwkv::Exchange<rwkv::Token, Gpu> tokens(embedding.be, static_cast<std::size_t>(batch));
      for (Index b = 0; b < batch; ++b) {
        tokens.numbers()[static_cast<std::size_t>(b)] = static_cast<rwkv::Token>(49 - 7 * b % 50);
      }
      const std::span<const rwkv::Token> chosen(tokens.numbers());
      const std::vector<T> nothing(static_cast<std::size_t>(batch * width), std::numeric_limits<T>::quiet_NaN());
      const rwkv::Seq<T> x{embedding.take(nothing), batch, 1, width};
      std::vector<double> want_x(nothing.size()), want(static_cast<std::size_t>(batch * 50));
      const rwkv::Seq<double> reference_x{want_x.data(), batch, 1, width};
      const rwkv::Seq<T> logits{head.take(std::vector<T>(want.size(), std::numeric_limits<T>::quiet_NaN())), batch, 1,
                                50};
      std::vector<std::byte> memory(1 << 16);
      want_embedding.part.forward(want_embedding.be, chosen, reference_x);
      want_head.part.forward(want_head.be, rwkv::Arena(memory.data(), 1 << 16), reference_x,
                             rwkv::Seq<double>{want.data(), batch, 1, 50});
      const auto scratch =
          rwkv::scratch_for(head.be, [&](rwkv::Arena ws) { head.part.forward(head.be, ws, x, logits); });
      CHECK((scratch.bytes() == 0) == (batch <= 8));

      const long before = simt::counts.launches;
      embedding.part.forward(embedding.be, chosen, x);
      embedding.be.sync();
      if constexpr (simt::emulated) CHECK(simt::counts.launches - before == 1);
      CHECK(distance(embedding.read(x.data, batch * width), want_x) < bound);
      head.part.forward(head.be, scratch.arena(), x, logits);
      head.be.sync();
      if (simt::emulated && batch <= 8) CHECK(simt::counts.launches - before == 2);
      CHECK(distance(head.read(logits.data, batch * 50), want) < bound);
    }
  }
}
