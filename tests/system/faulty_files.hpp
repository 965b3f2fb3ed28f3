#pragma once
/// A file system whose calls fail.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/system/file.hpp"

namespace system_faults {

namespace fs = std::filesystem;
using rwkv::File;
using rwkv::FileStatus;
using rwkv::FileSystem;

/// A file system in which one call fails, calls are interrupted, or reads and writes do less than asked.
class FaultyFiles : public FileSystem {
 public:
  explicit FaultyFiles(FileSystem& real = rwkv::system_files()) : real_(real) {}

  int fail_at = 0;  ///< The number of the call that fails, from 1; 0 for none.
  std::error_code error{ENOSPC, std::generic_category()};
  bool interrupt = false;                 ///< Every call that can be repeated is interrupted once before it works.
  std::size_t largest = ~std::size_t{0};  ///< Bytes of the largest read or write.
  std::vector<std::string> calls;

  std::error_code open(const fs::path& path, std::unique_ptr<File>& file) override {
    if (const auto e = fault("open", true)) return e;
    return wrap(real_.open(path, file), file);
  }
  std::error_code create(const fs::path& path, std::optional<fs::perms> permissions,
                         std::unique_ptr<File>& file) override {
    if (const auto e = fault("create", true)) return e;
    return wrap(real_.create(path, permissions, file), file);
  }
  std::error_code status(const fs::path& path, FileStatus& status) override {
    const auto e = fault("status", true);
    return e ? e : real_.status(path, status);
  }
  std::error_code resolve(const fs::path& path, fs::path& real) override {
    const auto e = fault("resolve", true);
    return e ? e : real_.resolve(path, real);
  }
  std::error_code rename(const fs::path& from, const fs::path& to) override {
    const auto e = fault("rename", false);
    return e ? e : real_.rename(from, to);
  }
  std::error_code remove(const fs::path& path) override {
    const auto e = fault("remove", false);
    return e ? e : real_.remove(path);
  }
  std::error_code sync_folder(const fs::path& folder) override {
    const auto e = fault("sync_folder", true);
    return e ? e : real_.sync_folder(folder);
  }

 private:
  class FaultyFile : public File {
   public:
    FaultyFile(FaultyFiles& files, std::unique_ptr<File> real) : files_(files), real_(std::move(real)) {}
    std::error_code status(FileStatus& status) override {
      const auto e = files_.fault("fstatus", true);
      return e ? e : real_->status(status);
    }
    std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) override {
      const auto e = files_.fault("read", true);
      return e ? e : real_->read(offset, into.first(std::min(into.size(), files_.largest)), count);
    }
    std::error_code map(std::size_t size, std::span<const std::byte>& bytes) override {
      const auto e = files_.fault("map", true);
      return e ? e : real_->map(size, bytes);
    }
    std::error_code write(std::span<const std::byte> from, std::size_t& count) override {
      const auto e = files_.fault("write", true);
      return e ? e : real_->write(from.first(std::min(from.size(), files_.largest)), count);
    }
    std::error_code sync() override {
      const auto e = files_.fault("sync", true);
      return e ? e : real_->sync();
    }
    std::error_code close() override {
      const auto e = files_.fault("close", false);
      return e ? e : real_->close();
    }

   private:
    FaultyFiles& files_;
    std::unique_ptr<File> real_;
  };

  std::error_code wrap(std::error_code error_code, std::unique_ptr<File>& file) {
    if (!error_code) file = std::make_unique<FaultyFile>(*this, std::move(file));
    return error_code;
  }

  std::error_code fault(const std::string& name, bool repeatable) {
    if (interrupt && repeatable && (calls.empty() || calls.back() != name + " interrupted")) {
      calls.push_back(name + " interrupted");
      return std::make_error_code(std::errc::interrupted);
    }
    calls.push_back(name);
    return static_cast<int>(calls.size()) == fail_at ? error : std::error_code();
  }

  FileSystem& real_;
};

}  // namespace system_faults
