/// A loss of power at any moment of a save: after every number of operations, with every combination of those that had not
/// reached the disk, the file is the old one or the new one, whole.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../system/simulated_disk.hpp"
#include "setup.hpp"

using namespace rwkv;

namespace {

const std::filesystem::path path = "folder/run.safetensors";

struct Found {
  long states = 0;
  long damaged = 0;  ///< neither of the two files that may be there
  std::size_t most_open = 0;
};

/// Calls save(disk, i) for i from 0 on, `saves` times, and then loses the power at every moment. A state is right when the
/// file is that of the last save that returned, or of the one under way. resumed(disk) is called with right states.
template <class Save, class Resumed>
Found lose_power(SimulatedDisk& disk, int saves, const Save& save, const Resumed& resumed) {
  std::vector<std::size_t> returned{0};
  std::vector<std::string> versions{""};  // a file that is not there, and the file after every save
  for (int i = 0; i < saves; ++i) {
    save(disk, i);
    returned.push_back(disk.operations());
    versions.push_back(disk.contents().at(path.string()));
  }
  Found found;
  std::size_t last = 0;  // the last save that returned
  for (std::size_t count = 0; count <= disk.operations(); ++count) {
    while (last + 1 < returned.size() && returned[last + 1] <= count) ++last;
    found.most_open = std::max(found.most_open, disk.open_after(count));
    disk.after_power_loss(count, [&](const SimulatedDisk::Contents& contents) {
      ++found.states;
      const auto there = contents.find(path.string());
      const std::string content = there == contents.end() ? "" : there->second;
      const bool right = content == versions[last] || (last + 1 < versions.size() && content == versions[last + 1]);
      if (!right) ++found.damaged;
      else if (!content.empty() && found.states % 16 == 0) resumed(contents);
    });
  }
  return found;
}

void save_text(SimulatedDisk& disk, int i) {
  const std::string text(900, static_cast<char>('a' + i));
  disk.largest = 90;
  write_atomically(disk, path, [&](FileWriter& out) { out.write(text); });
}

constexpr auto ignore = [](const SimulatedDisk::Contents&) {};

}  // namespace

TEST_CASE("a loss of power leaves the old file or the new one") {
  SimulatedDisk disk;
  const Found found = lose_power(disk, 3, save_text, ignore);
  MESSAGE(found.states << " states, at most " << found.most_open << " operations not on the disk");
  CHECK(found.most_open >= 10);
  CHECK(found.states > 10'000);
  CHECK(found.damaged == 0);
}

TEST_CASE("a disk that does not sync is seen") {
  SimulatedDisk files, folders;
  files.syncs_files = false;
  CHECK(lose_power(files, 1, save_text, ignore).damaged > 0);
  folders.syncs_folders = false;
  CHECK(lose_power(folders, 1, save_text, ignore).damaged > 0);
}

TEST_CASE("a training run goes on after any loss of power, and no temporary file stays") {
  auto options = config::small_options();
  auto net = config::initialized<config::SmallNet<>>(config::small_sizes);
  Trainer<config::SmallNet<>> trainer(net, options);
  SimulatedDisk disk;
  {
    SimulatedDisk measured;
    trainer.save(path, {}, measured);
    disk.largest = measured.contents().at(path.string()).size() / 8 + 1;
  }
  const auto save = [&](SimulatedDisk& to, int i) {
    config::train(trainer, options.shape, config::small_sizes.vocab, i, i + 1);
    trainer.save(path, {}, to);
  };
  auto other = config::initialized<config::SmallNet<>>(config::small_sizes);
  Trainer<config::SmallNet<>> resuming(other, options);
  long resumes = 0;
  const auto resume = [&](const SimulatedDisk::Contents& contents) {
    SimulatedDisk left(contents);
    resuming.resume(path, left);
    ++resumes;
    CHECK(resuming.steps() >= 1);
    CHECK(left.contents().size() == 1);
  };
  const Found found = lose_power(disk, 3, save, resume);
  MESSAGE(found.states << " states, " << resumes << " resumes, at most " << found.most_open
                       << " operations not on the disk");
  CHECK(resumes > 20);
  CHECK(found.damaged == 0);
}
