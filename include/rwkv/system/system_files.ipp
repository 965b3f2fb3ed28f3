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

#include <fcntl.h>
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
  explicit PosixFile(int descriptor) : descriptor_(descriptor) {}
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;
  ~PosixFile() override {
    if (!map_.empty()) ::munmap(const_cast<std::byte*>(map_.data()), map_.size());
    PosixFile::close();
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

 private:
  // Some systems refuse more than INT_MAX bytes in one call.
  static constexpr std::size_t largest = std::size_t{1} << 30;

  static std::error_code counted(ssize_t answer, std::size_t& count) {
    count = answer < 0 ? 0 : static_cast<std::size_t>(answer);
    return answer < 0 ? last_error() : std::error_code();
  }

  int descriptor_;
  std::span<const std::byte> map_;
};

class PosixFiles : public PathCalls {
 public:
  std::error_code open(const std::filesystem::path& path, std::unique_ptr<File>& file) override {
    // Without O_NONBLOCK the call would wait for a writer when the path is a pipe.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return last_error();
    file = std::make_unique<PosixFile>(descriptor);
    return {};
  }
  std::error_code create(const std::filesystem::path& path, std::optional<std::filesystem::perms> permissions,
                         std::unique_ptr<File>& file) override {
    // Permissions to keep must be set apart, because the mode given here passes through the umask; until then nobody
    // else may open the file.
    const mode_t mode = permissions ? 0600 : 0666;
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (descriptor < 0) return last_error();
    auto created = std::make_unique<PosixFile>(descriptor);
    if (permissions && ::fchmod(descriptor, static_cast<mode_t>(*permissions) & 0777u) != 0) {
      const std::error_code error = last_error();
      ::unlink(path.c_str());
      return error;
    }
    file = std::move(created);
    return {};
  }
  std::error_code sync_folder(const std::filesystem::path& folder) override {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    return descriptor < 0 ? last_error() : PosixFile(descriptor).sync();
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
