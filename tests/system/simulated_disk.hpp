#pragma once
/// A disk in memory that keeps a list of what was asked of it, and makes of that list all that a loss of power may leave.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/system/file_system.hpp"

/// Until a file is synced, each write to it is on the disk or not; until a folder is synced, so is each change of a name,
/// in any combination. What is missing in front of a write that is there reads as zeros.
class SimulatedDisk : public rwkv::FileSystem {
 public:
  using Path = std::filesystem::path;
  using Contents = std::map<std::string, std::string>;  ///< of the files, by path

  bool syncs_files = true, syncs_folders = true;  ///< whether the disk does so, or only says that it did
  std::size_t largest = ~std::size_t{0};          ///< bytes of the largest write

  SimulatedDisk() = default;
  explicit SimulatedDisk(const Contents& contents) {
    for (const auto& [path, content] : contents) {
      names_[path] = files_.size();
      files_.push_back(content);
    }
  }

  std::size_t operations() const { return log_.size(); }
  Contents contents() const {
    Contents all;
    for (const auto& [path, file] : names_) all[path] = files_[file];
    return all;
  }

  /// Calls visit(contents) for all that may be there after the first `count` operations and a loss of power; the disk was
  /// empty before the first.
  template <class Visitor>
  void after_power_loss(std::size_t count, const Visitor& visit) const {
    std::vector<std::size_t> open;  // operations that may be missing
    for (std::size_t i = 0; i < count; ++i) {
      if (may_be_missing(i, count)) open.push_back(i);
    }
    for (std::uint64_t there = 0; there < std::uint64_t{1} << open.size(); ++there) {
      std::set<std::size_t> missing;
      for (std::size_t i = 0; i < open.size(); ++i) {
        if ((there >> i & 1) == 0) missing.insert(open[i]);
      }
      visit(replayed(count, missing));
    }
  }
  /// How many operations may be missing then.
  std::size_t open_after(std::size_t count) const {
    std::size_t open = 0;
    for (std::size_t i = 0; i < count; ++i) open += may_be_missing(i, count);
    return open;
  }

  std::error_code open(const Path& path, std::unique_ptr<rwkv::File>& file) override {
    const auto found = names_.find(path.string());
    if (found == names_.end()) return std::make_error_code(std::errc::no_such_file_or_directory);
    file = std::make_unique<Opened>(*this, found->second);
    return {};
  }
  std::error_code create(const Path& path, std::optional<std::filesystem::perms>,
                         std::unique_ptr<rwkv::File>& file) override {
    if (names_.contains(path.string())) return std::make_error_code(std::errc::file_exists);
    names_[path.string()] = files_.size();
    log_.push_back({Kind::create, files_.size(), 0, {}, path.string()});
    file = std::make_unique<Opened>(*this, files_.size());
    files_.emplace_back();
    return {};
  }
  std::error_code status(const Path& path, rwkv::FileStatus& status) override {
    status = {};
    const auto found = names_.find(path.string());
    if (found != names_.end()) status = status_of(found->second);
    return {};
  }
  std::error_code resolve(const Path& path, Path& real) override {
    real = path;
    return {};
  }
  std::error_code rename(const Path& from, const Path& to) override {
    const auto found = names_.find(from.string());
    if (found == names_.end()) return std::make_error_code(std::errc::no_such_file_or_directory);
    log_.push_back({Kind::rename, found->second, 0, from.string(), to.string()});
    names_[to.string()] = found->second;
    names_.erase(from.string());
    return {};
  }
  std::error_code remove(const Path& path) override {
    if (names_.erase(path.string()) == 0) return std::make_error_code(std::errc::no_such_file_or_directory);
    log_.push_back({Kind::remove, 0, 0, {}, path.string()});
    return {};
  }
  std::error_code sync_folder(const Path&) override {
    if (syncs_folders) log_.push_back({Kind::sync_folder, 0, 0, {}, {}});
    return {};
  }
  /// Nothing is in use: who wrote before the loss of power is gone.
  void remove_abandoned(const Path& folder) override {
    for (const auto& [path, content] : contents()) {
      const Path of(path);
      if (of.parent_path() == folder && rwkv::is_temporary(of.filename().string())) static_cast<void>(remove(of));
    }
  }

 private:
  enum class Kind { create, write, sync, rename, remove, sync_folder };
  struct Operation {
    Kind kind;
    std::size_t file;  // its number
    std::size_t at;    // of a write
    std::string from;  // the bytes of a write, the old name of a rename
    std::string to;    // the name
  };

  class Opened : public rwkv::File {
   public:
    Opened(SimulatedDisk& disk, std::size_t file) : disk_(disk), file_(file) {}
    std::error_code status(rwkv::FileStatus& status) override {
      status = disk_.status_of(file_);
      return {};
    }
    std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) override {
      const std::string& content = disk_.files_[file_];
      count = offset >= content.size() ? 0 : std::min(into.size(), content.size() - static_cast<std::size_t>(offset));
      if (count > 0) std::memcpy(into.data(), content.data() + offset, count);
      return {};
    }
    std::error_code map(std::size_t, std::span<const std::byte>&) override {
      return std::make_error_code(std::errc::not_supported);
    }
    std::error_code write(std::span<const std::byte> from, std::size_t& count) override {
      count = std::min(from.size(), disk_.largest);
      std::string& content = disk_.files_[file_];
      const std::string bytes(reinterpret_cast<const char*>(from.data()), count);
      disk_.log_.push_back({Kind::write, file_, content.size(), bytes, {}});
      content += bytes;
      return {};
    }
    std::error_code sync() override {
      if (disk_.syncs_files) disk_.log_.push_back({Kind::sync, file_, 0, {}, {}});
      return {};
    }
    std::error_code close() override { return {}; }

   private:
    SimulatedDisk& disk_;
    std::size_t file_;
  };

  rwkv::FileStatus status_of(std::size_t file) const {
    return {rwkv::FileStatus::Kind::regular, files_[file].size(), 0, std::filesystem::perms::owner_all};
  }

  bool may_be_missing(std::size_t i, std::size_t count) const {
    const Operation& operation = log_[i];
    if (operation.kind == Kind::sync || operation.kind == Kind::sync_folder) return false;
    for (std::size_t later = i + 1; later < count; ++later) {
      const Operation& sync = log_[later];
      if (operation.kind == Kind::write ? sync.kind == Kind::sync && sync.file == operation.file
                                        : sync.kind == Kind::sync_folder) {
        return false;
      }
    }
    return true;
  }

  Contents replayed(std::size_t count, const std::set<std::size_t>& missing) const {
    std::map<std::string, std::size_t> names;
    std::map<std::size_t, std::string> files;
    for (std::size_t i = 0; i < count; ++i) {
      if (missing.contains(i)) continue;
      const Operation& operation = log_[i];
      std::string& content = files[operation.file];
      switch (operation.kind) {
        case Kind::create: names[operation.to] = operation.file; break;
        case Kind::write:
          content.resize(std::max(content.size(), operation.at + operation.from.size()));
          content.replace(operation.at, operation.from.size(), operation.from);
          break;
        case Kind::rename:
          names.erase(operation.from);
          names[operation.to] = operation.file;
          break;
        case Kind::remove: names.erase(operation.to); break;
        case Kind::sync:
        case Kind::sync_folder: break;
      }
    }
    Contents all;
    for (const auto& [path, file] : names) all[path] = files[file];
    return all;
  }

  std::vector<Operation> log_;
  std::vector<std::string> files_;
  std::map<std::string, std::size_t> names_;
};
