/// Models whose matrices keep the number types of their file have the bits of a model of that type.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "as_stored.hpp"

using namespace as_stored;

namespace {

template <class S, class B, class Static>
void check_equal(const std::filesystem::path& path) {
  const auto tokens = config::some_tokens(23, sizes.vocab);
  const auto stored = load_checkpoint<Net<AsStored<S>, B>>(path);
  const auto fixed = load_checkpoint<Net<Static, B>>(path);
  CHECK(same_bits(config::all_logits(stored, tokens), config::all_logits(fixed, tokens)));
  CHECK(same_bits(config::all_logits(stored, tokens, {.chunk = 1}), config::all_logits(fixed, tokens, {.chunk = 1})));
}

}  // namespace

TEST_CASE_TEMPLATE("an AsStored model has the bits of a model of the file's type", B, Cpu, Reference) {
  const build::Folder folder;
  write_model<float>(folder / "f32");
  write_model<bf16>(folder / "bf16");
  check_equal<float, B, float>(folder / "f32");
  check_equal<float, B, bf16>(folder / "bf16");
}

TEST_CASE("an AsStored model that computes in double takes every type; one in float converts double and keeps half") {
  const build::Folder folder;
  save_checkpoint<double>(config::live<Net<float>>(sizes, Cpu()), folder / "f64");
  write_model<bf16>(folder / "bf16");
  write_model<float>(folder / "f32");
  check_equal<double, Cpu, double>(folder / "f64");
  check_equal<double, Cpu, Numerics<float, double>>(folder / "f32");
  check_equal<double, Cpu, Numerics<bf16, double>>(folder / "bf16");
  check_equal<float, Cpu, float>(folder / "f64");
  write_model<f16>(folder / "f16");
  check_equal<float, Cpu, f16>(folder / "f16");
}
