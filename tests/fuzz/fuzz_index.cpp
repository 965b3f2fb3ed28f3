// Any bytes as the index of shards and as a config.json. An rwkv::Error is a right answer; anything else that goes wrong
// ends the process.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "rwkv/core/error.hpp"
#include "rwkv/io/json.hpp"
#include "rwkv/io/shards.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    std::string_view before;
    const auto map = rwkv::detail::read_weight_map(text, "fuzzed");
    for (const auto& [tensor, shard] : map) {
      demand(rwkv::detail::is_clean_name(tensor) && before < tensor);
      demand(rwkv::detail::is_clean_name(shard) && shard != "." && shard != "..");
      demand(shard.find_first_of("/\\:") == std::string_view::npos);
      before = tensor;
    }
  } catch (const rwkv::Error& error) {
    demand(std::string_view(error.what()).starts_with("fuzzed"));
  }
  try {
    rwkv::detail::SmallJson config("fuzzed");
    config.read(text);
    const auto number = config.number("norm_eps");
    demand(!number || !config.text("norm_eps"));
    config.is_true("use_dora");
    config.is_filled("alpha_pattern");
  } catch (const rwkv::Error& error) {
    demand(std::string_view(error.what()).starts_with("fuzzed"));
  }
  return 0;
}
