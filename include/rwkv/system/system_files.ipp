#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "rwkv/system/stream_files.hpp"
#include "rwkv/system/system_files.hpp"

#if !defined(_WIN32)
#include <cerrno>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace rwkv {
inline namespace RWKV_ABI {

#if !defined(_WIN32)
namespace detail {

inline std::error_code last_error() { return {errno, std::generic_category()}; }

class PosixFile : public File {
 public:
  PosixFile() = default;
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;
  ~PosixFile() override {
    if (!map_.empty()) ::munmap(const_cast<std::byte*>(map_.data()), map_.size());
    PosixFile::close();
    if (lock_ >= 0) ::close(lock_);
  }

  /// Opens the path; flags and mode are those of open().
  std::error_code open(const std::filesystem::path& path, int flags, mode_t mode = 0) {
    descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    return descriptor_ < 0 ? last_error() : std::error_code();
  }
  /// Marks the file, just created, as in use until this object ends. errc::file_exists when remove_unless_in_use of
  /// another process came in between and removes it.
  std::error_code take() {
    // A file system without locks has none for remove_unless_in_use either.
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      return errno == EWOULDBLOCK ? std::make_error_code(std::errc::file_exists) : std::error_code();
    }
    struct stat found = {};
    if (::fstat(descriptor_, &found) != 0) return last_error();
    if (found.st_nlink == 0) return std::make_error_code(std::errc::file_exists);
    // Both descriptors have the lock, so it outlives close(), which reports what the disk did not take.
    lock_ = ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0);
    return lock_ < 0 ? last_error() : std::error_code();
  }
  std::error_code set_permissions(std::filesystem::perms permissions) {
    return ::fchmod(descriptor_, static_cast<mode_t>(permissions) & 0777u) == 0 ? std::error_code() : last_error();
  }
  std::error_code status(FileStatus& status) override {
    struct stat found = {};
    if (::fstat(descriptor_, &found) != 0) return last_error();
    status.kind = S_ISREG(found.st_mode)   ? FileStatus::Kind::regular
                  : S_ISDIR(found.st_mode) ? FileStatus::Kind::folder
                                           : FileStatus::Kind::other;
    status.size = static_cast<std::uint64_t>(found.st_size);
#if defined(__APPLE__)
    const timespec& modified = found.st_mtimespec;
#else
    const timespec& modified = found.st_mtim;
#endif
    status.modified = std::int64_t{modified.tv_sec} * 1'000'000'000 + modified.tv_nsec;
    status.permissions = static_cast<std::filesystem::perms>(found.st_mode & 07777u);
    return {};
  }
  std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) override {
    return counted(::pread(descriptor_, into.data(), std::min(into.size(), largest), static_cast<off_t>(offset)),
                   count);
  }
  std::error_code map(std::size_t size, std::span<const std::byte>& bytes) override {
    // Writable but private, so that a model may be changed in place; without reserve, a file may exceed the memory.
#if defined(MAP_NORESERVE)
    constexpr int flags = MAP_PRIVATE | MAP_NORESERVE;
#else
    constexpr int flags = MAP_PRIVATE;
#endif
    void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, descriptor_, 0);
    if (start == MAP_FAILED) return last_error();
    bytes = map_ = {static_cast<const std::byte*>(start), size};
    return {};
  }
  std::error_code write(std::span<const std::byte> from, std::size_t& count) override {
    return counted(::write(descriptor_, from.data(), std::min(from.size(), largest)), count);
  }
  std::error_code sync() override { return ::fsync(descriptor_) == 0 ? std::error_code() : last_error(); }
  std::error_code close() override {
    const int descriptor = std::exchange(descriptor_, -1);
    // The descriptor is gone even when close reports an interruption, so it is never closed twice.
    return descriptor < 0 || ::close(descriptor) == 0 ? std::error_code() : last_error();
  }

  /// Removes the file, opened from `path`, if nobody has its lock. While this object has it, nobody else removes the file,
  /// so what the path leads to stays.
  void remove_unless_in_use(const std::filesystem::path& path) const {
    struct stat own = {}, there = {};
    if (::fstat(descriptor_, &own) != 0 || !S_ISREG(own.st_mode)) return;
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) return;
    if (::lstat(path.c_str(), &there) != 0 || there.st_ino != own.st_ino || there.st_dev != own.st_dev) return;
    ::unlink(path.c_str());
  }

 private:
  // Some systems refuse more than INT_MAX bytes in one call.
  static constexpr std::size_t largest = std::size_t{1} << 30;

  static std::error_code counted(ssize_t answer, std::size_t& count) {
    count = answer < 0 ? 0 : static_cast<std::size_t>(answer);
    return answer < 0 ? last_error() : std::error_code();
  }

  int descriptor_ = -1, lock_ = -1;
  std::span<const std::byte> map_;
};

class PosixFiles : public PathCalls {
 public:
  std::error_code open(const std::filesystem::path& path, std::unique_ptr<File>& file) override {
    auto opened = std::make_unique<PosixFile>();
    // Without O_NONBLOCK the call would wait for a writer when the path is a pipe.
    if (const std::error_code error = opened->open(path, O_RDONLY | O_NONBLOCK)) return error;
    file = std::move(opened);
    return {};
  }
  std::error_code create(const std::filesystem::path& path, std::optional<std::filesystem::perms> permissions,
                         std::unique_ptr<File>& file) override {
    auto created = std::make_unique<PosixFile>();
    // Permissions to keep must be set apart, because the mode given here passes through the umask; until then nobody
    // else may open the file.
    std::error_code error = created->open(path, O_WRONLY | O_CREAT | O_EXCL, permissions ? 0600 : 0666);
    if (error) return error;
    error = created->take();
    if (error == std::errc::file_exists) return error;
    if (!error && permissions) error = created->set_permissions(*permissions);
    if (error) ::unlink(path.c_str());
    else file = std::move(created);
    return error;
  }
  void remove_abandoned(const std::filesystem::path& folder) override {
    // Not std::filesystem::directory_iterator: that of libstdc++ 12 ends the program where memory ends.
    struct Close {
      void operator()(DIR* opened) const { ::closedir(opened); }
    };
    const std::unique_ptr<DIR, Close> entries(::opendir(folder.c_str()));
    while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
      if (!is_temporary(entry->d_name)) continue;
      const std::filesystem::path path = folder / entry->d_name;
      PosixFile file;
      if (!file.open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW)) file.remove_unless_in_use(path);
    }
  }
  std::error_code sync_folder(const std::filesystem::path& folder) override {
    PosixFile file;
    const std::error_code error = file.open(folder, O_RDONLY | O_DIRECTORY);
    return error ? error : file.sync();
  }
};

}  // namespace detail
#endif

RWKV_BODY FileSystem& system_files() {
#if defined(_WIN32)
  static detail::StreamFiles files;
#else
  static detail::PosixFiles files;
#endif
  return files;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
