// Reading files as bytes and replacing files in one step, also when any call to the system fails.
#include "rwkv/system/file.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../io/checks.hpp"
#include "faulty_files.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/stream_files.hpp"

#if !defined(_WIN32)
#include <sys/stat.h>
#include <unistd.h>
#endif

using rwkv::Access;
using rwkv::File;
using rwkv::FileStatus;
using rwkv::FileSystem;
using system_faults::FaultyFiles;
namespace fs = std::filesystem;

namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const rwkv::Error& error) {
    return error.what();
  }
  return "";
}

std::string content(const rwkv::Bytes& bytes) { return build::text(bytes.view()); }

/// More than one gathered write, in pieces smaller and larger than the gathering.
std::string large_text() {
  std::string text;
  for (int i = 0; i < 40'000; ++i) text += std::to_string(i) + " ";
  return text;
}

void write_large(FileSystem& files, const fs::path& path) {
  const std::string text = large_text();
  rwkv::write_atomically(files, path, [&](rwkv::FileWriter& out) {
    out.write(std::string_view(text).substr(0, 10));
    out.write(std::string_view(text).substr(10, 70'000));
    for (std::size_t i = 70'010; i < text.size(); i += 1000) out.write(std::string_view(text).substr(i, 1000));
  });
}

}  // namespace

TEST_CASE("file: loaded and mapped bytes are the content") {
  const build::Folder folder;
  const auto path = folder / "data";
  const std::string text = large_text();
  build::put(path, text);
  for (const Access access : {Access::automatic, Access::mapped, Access::loaded}) {
    const rwkv::Bytes bytes = rwkv::read_file(path, access);
    CHECK(bytes.is_mapped() == (access == Access::mapped));
    CHECK(content(bytes) == text);
    CHECK(bytes.name() == path.string());
    CHECK_NOTHROW(bytes.check_unchanged());
    const rwkv::Bytes copy = bytes;
    CHECK(copy.view().data() == bytes.view().data());
  }
}

TEST_CASE("file: large files are mapped unless told otherwise") {
  const build::Folder folder;
  const auto path = folder / "data";
  build::put(path, "start");
  fs::resize_file(path, (std::uintmax_t{64} << 20) - 1);
  CHECK_FALSE(rwkv::read_file(path).is_mapped());
  fs::resize_file(path, std::uintmax_t{64} << 20);
  CHECK(rwkv::read_file(path).is_mapped());
}

TEST_CASE("file: the bytes live as long as anyone needs them") {
  const build::Folder folder;
  const auto path = folder / "model.pth";
  build::put(path, build::good_pth());
  for (const Access access : {Access::mapped, Access::loaded}) {
    std::span<const std::byte> view;
    std::shared_ptr<const void> keep;
    {
      const rwkv::TensorFile file = rwkv::open_tensors(path, {.access = access});
      view = file.find("w")->bytes;
      keep = file.keep_alive();
      CHECK(file.path() == path);
    }
    REQUIRE(keep != nullptr);
    CHECK(build::text(view) == build::floats());
  }
  CHECK(rwkv::open_tensors(build::bytes(build::good_pth()), "memory").keep_alive() == nullptr);
}

TEST_CASE("file: a change of a mapped file is noticed, and does not reach a loaded one") {
  const build::Folder folder;
  const auto path = folder / "data";
  const auto fresh = [&] {
    build::put(path, "0123456789");
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(1));
    return std::pair(rwkv::read_file(path, Access::mapped), rwkv::read_file(path, Access::loaded));
  };
  SUBCASE("cut") {
    const auto [mapped, loaded] = fresh();
    fs::resize_file(path, 3);
    CHECK(message_of([&, &m = mapped] { m.check_unchanged(); }).find("had 10 bytes and has 3 now") !=
          std::string::npos);
    CHECK_NOTHROW(loaded.check_unchanged());
    CHECK(content(loaded) == "0123456789");
  }
  SUBCASE("overwritten in the same size") {
    const auto [mapped, loaded] = fresh();
    build::put(path, "abcdefghij");
    CHECK_THROWS_AS(mapped.check_unchanged(), rwkv::Error);
    CHECK(content(loaded) == "0123456789");
  }
  SUBCASE("replaced by a rename, which leaves the mapped file alone") {
    const auto [mapped, loaded] = fresh();
    rwkv::write_atomically(rwkv::system_files(), path, [](rwkv::FileWriter& out) { out.write("new"); });
    CHECK_NOTHROW(mapped.check_unchanged());
    CHECK(content(mapped) == "0123456789");
    CHECK(build::get(path) == "new");
  }
}

TEST_CASE("file: what is no readable file is refused by name") {
  const build::Folder folder;
  const auto refused = [&](const fs::path& path, const std::string& phrase) {
    for (const Access access : {Access::automatic, Access::mapped, Access::loaded}) {
      const std::string said = message_of([&] { rwkv::read_file(path, access); });
      CAPTURE(said);
      CHECK(said.find(path.filename().string()) != std::string::npos);
      CHECK(said.find(phrase) != std::string::npos);
    }
  };
  refused(folder / "missing", "cannot open");
  fs::create_directory(folder / "folder");
  refused(folder / "folder", "folder");
  build::put(folder / "empty", "");
  refused(folder / "empty", "empty");
  fs::create_symlink("nowhere", folder / "dangling");
  refused(folder / "dangling", "cannot open");
  fs::create_symlink("loop", folder / "loop");
  refused(folder / "loop", "cannot open");
  fs::create_symlink("folder", folder / "folder-link");
  refused(folder / "folder-link", "folder");
#if !defined(_WIN32)
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  refused(folder / "pipe", "not a regular file");
#endif
  build::put(folder / "file", "content");
  fs::create_symlink("file", folder / "link");
  CHECK(content(rwkv::read_file(folder / "link")) == "content");
}

TEST_CASE("file: reading survives interruptions and short reads, and reports every failing call") {
  const build::Folder folder;
  const auto path = folder / "data";
  build::put(path, "0123456789");
  for (const Access access : {Access::mapped, Access::loaded}) {
    FaultyFiles slow;
    slow.interrupt = true;
    slow.largest = 3;
    CHECK(content(rwkv::read_file(path, access, slow)) == "0123456789");
    for (int n = 1;; ++n) {
      REQUIRE(n < 20);
      FaultyFiles files;
      files.fail_at = n;
      files.error = std::error_code(EIO, std::generic_category());
      files.largest = 3;
      const std::string said = message_of([&] { rwkv::read_file(path, access, files); });
      if (static_cast<int>(files.calls.size()) < n) {
        CHECK(said.empty());
        CHECK(n > (access == Access::mapped ? 3 : 7));
        break;
      }
      CAPTURE(said);
      CHECK(said.find(path.string()) != std::string::npos);
    }
  }
}

TEST_CASE("file: a file that changes while it is read is refused") {
  class Changing : public FaultyFiles {
   public:
    explicit Changing(std::function<void()> change) : change_(std::move(change)) {}
    std::error_code open(const fs::path& path, std::unique_ptr<File>& file) override {
      const std::error_code error_code = FaultyFiles::open(path, file);
      if (!error_code) file = std::make_unique<Hook>(std::move(file), change_);
      return error_code;
    }

   private:
    struct Hook : File {
      Hook(std::unique_ptr<File> file, std::function<void()>& hook) : real(std::move(file)), change(hook) {}
      std::error_code status(FileStatus& s) override { return real->status(s); }
      std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) override {
        change();
        return real->read(offset, into.first(1), count);
      }
      std::error_code map(std::size_t, std::span<const std::byte>&) override {
        return {ENODEV, std::generic_category()};
      }
      std::error_code write(std::span<const std::byte>, std::size_t&) override { return {}; }
      std::error_code sync() override { return {}; }
      std::error_code close() override { return {}; }
      std::unique_ptr<File> real;
      std::function<void()>& change;
    };
    std::function<void()> change_;
  };
  const build::Folder folder;
  const auto path = folder / "data";
  build::put(path, "0123456789");
  Changing shrinking([&] { fs::resize_file(path, 5); });
  CHECK(message_of([&] { rwkv::read_file(path, Access::loaded, shrinking); }).find("ended after 5 of its 10 bytes") !=
        std::string::npos);
  build::put(path, "0123456789");
  Changing growing([&] { fs::resize_file(path, 15); });
  CHECK(message_of([&] { rwkv::read_file(path, Access::loaded, growing); }).find("changed while it was read") !=
        std::string::npos);
  CHECK(message_of([&] { rwkv::read_file(path, Access::mapped, growing); }).find("cannot map") != std::string::npos);
}

TEST_CASE("file: writing replaces the content in the order that survives a crash") {
  const build::Folder folder;
  const auto path = folder / "data";
  FaultyFiles files;
  write_large(files, path);
  CHECK(build::get(path) == large_text());
  CHECK(folder.count() == 1);
  const std::vector<std::string> tail{"sync", "close", "rename", "sync_folder"};
  REQUIRE(files.calls.size() > 6);
  CHECK(std::vector<std::string>(files.calls.end() - 4, files.calls.end()) == tail);
  for (std::size_t i = 2; i < files.calls.size() - 4; ++i) CHECK(files.calls[i] == "write");
  // Small pieces are gathered: 209 KB in pieces of 1000 bytes take few calls.
  CHECK(files.calls.size() < 15);
}

TEST_CASE("file: writing survives interruptions and short writes") {
  const build::Folder folder;
  const auto path = folder / "data";
  FaultyFiles files;
  files.interrupt = true;
  files.largest = 1001;
  write_large(files, path);
  CHECK(build::get(path) == large_text());
  write_large(files, path);
  CHECK(build::get(path) == large_text());
  CHECK(folder.count() == 1);
}

TEST_CASE("file: whichever call fails while writing, the old file stays whole and no temporary stays behind") {
  const build::Folder folder;
  const auto path = folder / "data";
  for (const bool replacing : {false, true}) {
    for (const int code : {ENOSPC, EIO, EDQUOT, EACCES}) {
      for (int n = 1;; ++n) {
        REQUIRE(n < 100);
        fs::remove(path);
        if (replacing) build::put(path, "old");
        FaultyFiles files;
        files.fail_at = n;
        files.error = std::error_code(code, std::generic_category());
        files.largest = 50'000;
        const std::string said = message_of([&] { write_large(files, path); });
        if (static_cast<int>(files.calls.size()) < n) {
          CHECK(said.empty());
          CHECK(build::get(path) == large_text());
          CHECK(n > 10);
          break;
        }
        const std::string& failed = files.calls[static_cast<std::size_t>(n) - 1];
        CAPTURE(failed);
        CAPTURE(said);
        CHECK(said.find(path.string()) != std::string::npos);
        const bool in_place = failed == "sync_folder";
        CHECK((said.find("the new file is in place") != std::string::npos) == in_place);
        CHECK(build::get(path) == (in_place ? large_text() : replacing ? "old" : ""));
        CHECK(folder.count() == (in_place || replacing ? 1 : 0));
      }
    }
  }
}

TEST_CASE("file: a writer that throws leaves everything as it was") {
  const build::Folder folder;
  const auto path = folder / "data";
  build::put(path, "old");
  CHECK_THROWS_WITH_AS(rwkv::write_atomically(rwkv::system_files(), path,
                                              [](rwkv::FileWriter& out) {
                                                out.write("new");
                                                rwkv::fail("no more");
                                              }),
                       "no more", rwkv::Error);
  CHECK(build::get(path) == "old");
  CHECK(folder.count() == 1);
}

TEST_CASE("file: folders that cannot be synced, and temporary files of others") {
  const build::Folder folder;
  const auto path = folder / "data";
  FaultyFiles files;
  files.fail_at = 7;
  files.error = std::make_error_code(std::errc::invalid_argument);
  rwkv::write_atomically(files, path, [](rwkv::FileWriter& out) { out.write("new"); });
  CHECK(files.calls.back() == "sync_folder");
  CHECK(files.calls.size() == 7);

  FaultyFiles exact;
  exact.fail_at = 9;
  exact.error = std::make_error_code(std::errc::invalid_argument);
  build::put(folder / ".rwkv-0.tmp", "of someone else");
  rwkv::write_atomically(exact, path, [](rwkv::FileWriter& out) { out.write("newer"); });
  CHECK(exact.calls == std::vector<std::string>{"status", "resolve", "create", "create", "write", "sync", "close",
                                                "rename", "sync_folder"});
  CHECK(build::get(path) == "newer");
  CHECK(build::get(folder / ".rwkv-0.tmp") == "of someone else");
  CHECK(folder.count() == 2);
}

#if !defined(_WIN32)
TEST_CASE("file: what a killed process left is removed by the next save in the folder, what is in use stays") {
  const build::Folder folder;
  rwkv::FileSystem& files = rwkv::system_files();
  for (const char* name :
       {".rwkv-0.tmp", ".rwkv-7.tmp", ".rwkv-.tmp", ".rwkv-x.tmp", "rwkv-0.tmp", ".rwkv-1.tmp.txt"}) {
    build::put(folder / name, "left");
  }
  fs::create_directory(folder / ".rwkv-3.tmp");
  fs::create_symlink(".rwkv-x.tmp", folder / ".rwkv-4.tmp");
  std::unique_ptr<File> used;
  REQUIRE_FALSE(files.create(folder / ".rwkv-2.tmp", std::nullopt, used));
  REQUIRE_FALSE(used->close());  // as between a close and the rename

  const auto path = folder / "data";
  rwkv::write_atomically(files, path, [](rwkv::FileWriter& out) { out.write("new"); });
  CHECK(build::get(path) == "new");
  CHECK_FALSE(fs::exists(folder / ".rwkv-0.tmp"));
  CHECK_FALSE(fs::exists(folder / ".rwkv-7.tmp"));
  CHECK(fs::exists(folder / ".rwkv-2.tmp"));
  CHECK(folder.count() == 8);
  used.reset();
  files.remove_abandoned(folder.path());
  CHECK_FALSE(fs::exists(folder / ".rwkv-2.tmp"));
  files.remove_abandoned(folder / "missing");
}
#endif

TEST_CASE("file: links are followed, permissions kept, folders and pipes not replaced") {
  const build::Folder folder;
  const auto write = [&](std::string_view name) {
    return message_of([&] {
      rwkv::write_atomically(rwkv::system_files(), folder / name, [](rwkv::FileWriter& out) { out.write("new"); });
    });
  };
  SUBCASE("a link to a file") {
    fs::create_directory(folder / "sub");
    build::put(folder / "sub/file", "old");
    fs::create_symlink("sub/file", folder / "link");
    CHECK(write("link").empty());
    CHECK(fs::is_symlink(folder / "link"));
    CHECK(build::get(folder / "sub/file") == "new");
    CHECK(folder.count() == 2);
  }
  SUBCASE("permissions") {
    for (const unsigned mode : {0600u, 0640u, 0666u, 0444u}) {
      build::put(folder / "file", "old");
      fs::permissions(folder / "file", static_cast<fs::perms>(mode));
      CHECK(write("file").empty());
      CHECK(fs::status(folder / "file").permissions() == static_cast<fs::perms>(mode));
      CHECK(build::get(folder / "file") == "new");
      fs::remove(folder / "file");
    }
  }
  SUBCASE("a folder") {
    fs::create_directory(folder / "sub");
    CHECK(write("sub").find("folder") != std::string::npos);
    CHECK(folder.count() == 1);
  }
  SUBCASE("a folder that does not exist") {
    CHECK(write("missing/file").find("cannot create the temporary file") != std::string::npos);
    CHECK(folder.count() == 0);
  }
#if !defined(_WIN32)
  SUBCASE("a pipe") {
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK(write("pipe").find("not a regular file") != std::string::npos);
  }
#endif
  SUBCASE("a name without a folder") {
    const fs::path before = fs::current_path();
    fs::current_path(folder.path());
    const std::string said = message_of(
        [&] { rwkv::write_atomically(rwkv::system_files(), "file", [](rwkv::FileWriter& out) { out.write("new"); }); });
    fs::current_path(before);
    CHECK(said.empty());
    CHECK(build::get(folder / "file") == "new");
  }
}

TEST_CASE("file: saving tensors is atomic too") {
  const build::Folder folder;
  const auto path = folder / "model.safetensors";
  const std::string data(8, 'x');
  const std::vector<rwkv::TensorView> old{{"old", rwkv::DType::f32, {2}, build::bytes(data)}};
  const std::vector<rwkv::TensorView> next{{"next", rwkv::DType::f64, {1}, build::bytes(data)}};
  for (int n = 1;; ++n) {
    REQUIRE(n < 100);
    rwkv::save_safetensors(path, old);
    FaultyFiles files;
    files.fail_at = n;
    const std::string said = message_of([&] { rwkv::save_safetensors(path, next, {}, files); });
    const bool done = static_cast<int>(files.calls.size()) < n;
    const bool in_place = done || files.calls[static_cast<std::size_t>(n) - 1] == "sync_folder";
    CHECK(said.empty() == done);
    CHECK((rwkv::open_tensors(path).find(in_place ? "next" : "old") != nullptr));
    CHECK(folder.count() == 1);
    if (done) break;
  }
}

TEST_CASE("file: standard streams serve where there are no POSIX calls") {
  const build::Folder folder;
  const auto path = folder / "data";
  rwkv::detail::StreamFiles files;
  write_large(files, path);
  CHECK(build::get(path) == large_text());
  write_large(files, path);
  CHECK(folder.count() == 1);
  CHECK(content(rwkv::read_file(path, Access::loaded, files)) == large_text());
  CHECK(message_of([&] { rwkv::read_file(path, Access::mapped, files); }).find("cannot map") != std::string::npos);
  CHECK(message_of([&] { rwkv::read_file(folder / "missing", Access::loaded, files); }).find("cannot open") !=
        std::string::npos);
  CHECK(message_of([&] { rwkv::read_file(folder.path(), Access::loaded, files); }).find("cannot open") !=
        std::string::npos);
  // A large file falls back to loading, because there are no maps.
  fs::resize_file(path, std::uintmax_t{64} << 20);
  const rwkv::Bytes bytes = rwkv::read_file(path, Access::automatic, files);
  CHECK_FALSE(bytes.is_mapped());
  CHECK(bytes.view().size() == std::size_t{64} << 20);

  for (int n = 1;; ++n) {
    REQUIRE(n < 100);
    build::put(path, "old");
    FaultyFiles faulty(files);
    faulty.fail_at = n;
    const std::string said = message_of([&] { write_large(faulty, path); });
    if (static_cast<int>(faulty.calls.size()) < n) break;
    const bool in_place = faulty.calls[static_cast<std::size_t>(n) - 1] == "sync_folder";
    CHECK_FALSE(said.empty());
    CHECK(build::get(path) == (in_place ? large_text() : "old"));
    CHECK(folder.count() == 1);
  }
}
