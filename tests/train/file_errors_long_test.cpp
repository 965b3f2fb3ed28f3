/// Every call to the file system fails, one at a time, with each error, in everything that reads and writes files: there is
/// one error, which names the file, or the right result; the old file is whole, and nothing is left beside it.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "../io/checks.hpp"
#include "../model/live.hpp"
#include "../system/faulty_files.hpp"
#include "setup.hpp"

using namespace rwkv;
using system_faults::FaultyFiles;
namespace fs = std::filesystem;

namespace {

using Net = LanguageModel<V7, float, Cpu>;
constexpr ModelSizes sizes{.vocab = 29, .width = 32, .depth = 2, .head_size = 8};

struct Counts {
  long calls = 0, errors = 0, right = 0;
} totals;

/// Runs an operation with every call failing in turn. run(files) performs it and returns what comes out of it; look() tells
/// what must be as before after an error, or as after success: `then` where the new file was in place already.
template <class Run, class Look>
void sweep(const char* name, const fs::path& path, const Run& run, const Look& look) {
  CAPTURE(name);
  const std::string before = look();
  FaultyFiles sound;
  const std::string result = run(sound);
  const std::string after = look();
  REQUIRE(sound.calls.size() >= 3);
  for (const int code : {EIO, ENOSPC, EINTR, EDQUOT}) {
    for (std::size_t n = 1; n <= sound.calls.size(); ++n) {
      CAPTURE(code);
      CAPTURE(sound.calls[n - 1]);
      FaultyFiles files;
      files.fail_at = static_cast<int>(n);
      files.error = std::error_code(code, std::generic_category());
      ++totals.calls;
      std::string said, came;
      try {
        came = run(files);
      } catch (const Error& error) {
        said = error.what();
      }
      CAPTURE(said);
      if (said.empty()) {
        ++totals.right;
        CHECK(came == result);
        CHECK(look() == after);
      } else {
        ++totals.errors;
        CHECK(said.find(path.stem().string()) != std::string::npos);
        if (said.find("the new file is in place") == std::string::npos) CHECK(look() == before);
        else CHECK(sound.calls[n - 1] == "sync_folder");
        FaultyFiles again;
        CHECK(run(again) == result);
        CHECK(look() == after);
      }
      if (code == EINTR && sound.calls[n - 1] != "rename") CHECK(said.empty());
    }
  }
}

/// The same for an operation that replaces the file at `path`.
template <class Run>
void sweep_saving(const char* name, const build::Folder& folder, const fs::path& path, const Run& run) {
  const auto fresh = [&](FileSystem& files) {
    build::put(path, "old");
    run(files);
    return std::string();
  };
  const std::size_t count = folder.count() + (fs::exists(path) ? 0 : 1);
  build::put(path, "old");
  const auto look = [&] {
    CHECK(folder.count() == count);
    return build::get(path);
  };
  sweep(name, path, fresh, look);
}

template <class Run>
void sweep_loading(const char* name, const fs::path& path, const Run& run) {
  sweep(name, path, run, [] { return std::string(); });
}

std::string list(const TensorFile& file) {
  std::string text;
  for (const TensorView& tensor : file.tensors()) text += tensor.name + build::text(tensor.bytes);
  return text;
}

}  // namespace

TEST_CASE("whichever file call fails, with whichever error, nothing is lost") {
  totals = {};
  const build::Folder folder;
  const auto net = config::live<Net>(sizes, Cpu());
  const auto model = folder / "model.safetensors", saved = folder / "saved.safetensors";
  save_checkpoint(net, model);

  sweep_saving("save_checkpoint", folder, saved, [&](FileSystem& files) { save_checkpoint(net, saved, {}, files); });
  sweep_saving("save_quantised", folder, saved, [&](FileSystem& files) { save_quantised(net, saved, {}, {}, files); });
  sweep_loading("load_checkpoint", model, [&](FileSystem& files) {
    const auto loaded = load_checkpoint<Net>(model, {}, Cpu(), files);
    std::string numbers;
    for (const auto& parameter : loaded.parameters()) numbers += build::text(std::as_bytes(parameter.numbers()));
    return numbers;
  });
  sweep_loading("mapped", model, [&](FileSystem& files) { return list(open_tensors(model, {Access::mapped}, files)); });
  sweep_loading("load_model", model,
                [&](FileSystem& files) { return join(load_model(model, Cpu(), {}, files).sizes().width); });
  const auto pth = folder / "model.pth";
  build::put(pth, build::good_pth());
  sweep_loading(".pth", pth, [&](FileSystem& files) { return list(open_tensors(pth, {}, files)); });
  const auto index = folder / "model.safetensors.index.json";
  build::put(index, R"({"weight_map":{"w":"model-1.safetensors"}})");
  build::put(folder / "model-1.safetensors",
             build::safetensors(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", build::floats()));
  sweep_loading("index", folder / "model", [&](FileSystem& files) { return list(open_tensors(index, {}, files)); });
  const auto text = folder / "text.bin";
  build::put(text, "some text");
  sweep_loading("TokenData", text, [&](FileSystem& files) {
    return join(TokenData::open(text, TokenWidth::bits8, Access::automatic, files).size());
  });

  auto context = net.context({.batch = 2});
  context.prefill(config::some_tokens(20, sizes.vocab));
  const auto conversation = folder / "conversation.safetensors";
  const auto whole_state = [&] {
    const auto numbers = context.state();
    return build::text(std::as_bytes(std::span(numbers))) + join(context.position(0));
  };
  const auto first = context.state(0);
  Sampler sampler{.temperature = 0.8, .seed = 3};
  sweep_saving("save_state", folder, conversation,
               [&](FileSystem& files) { save_state(context, 1, conversation, {}, files); });
  sweep_saving("save_conversation", folder, conversation,
               [&](FileSystem& files) { save_conversation(context, 1, sampler, 5, conversation, {}, files); });
  save_conversation(context, 1, sampler, 5, conversation);
  context.step(std::vector<Token>{1, 2});
  sweep(
      "load_conversation", conversation,
      [&](FileSystem& files) {
        context.restore(0, first, 1);
        return join(load_conversation(context, 0, sampler, conversation, files).value_or(-1));
      },
      [&] { return std::string(); });
  const std::string loaded = whole_state();

  const TrainerOptions options = config::small_options();
  auto trained = config::initialized<config::SmallNet<>>(config::small_sizes);
  Trainer<config::SmallNet<>> trainer(trained, options);
  config::train(trainer, options.shape, config::small_sizes.vocab, 0, 2);
  const auto run = folder / "run.safetensors";
  sweep_saving("Trainer::save", folder, run, [&](FileSystem& files) { trainer.save(run, {}, files); });
  trainer.save(run);
  sweep_loading("Trainer::resume", run, [&](FileSystem& files) {
    trainer.resume(run, files);
    return join(trainer.steps());
  });
  MESSAGE(totals.calls << " failing calls: " << totals.errors << " errors, " << totals.right << " right results");
  CHECK(totals.errors > 200);
  CHECK(loaded == whole_state());
}
