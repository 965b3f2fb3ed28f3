#pragma once
/// The file systems of this machine: POSIX calls, and standard streams for every other system.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <ios>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "rwkv/config.hpp"
#include "rwkv/system/file_system.hpp"

#if !defined(_WIN32)
#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The calls on paths, which std::filesystem offers everywhere.
class PathCalls : public FileSystem {
 public:
  std::error_code status(const std::filesystem::path& path, FileStatus& status) override {
    std::error_code error;
    const std::filesystem::file_status found = std::filesystem::status(path, error);
    status = {};
    if (found.type() == std::filesystem::file_type::not_found) return {};
    if (error) return error;
    status.permissions = found.permissions();
    status.kind = std::filesystem::is_regular_file(found) ? FileStatus::Kind::regular
                  : std::filesystem::is_directory(found)  ? FileStatus::Kind::folder
                                                          : FileStatus::Kind::other;
    if (status.kind != FileStatus::Kind::regular) return {};
    status.size = std::filesystem::file_size(path, error);
    if (error) return error;
    status.modified =
        static_cast<std::int64_t>(std::filesystem::last_write_time(path, error).time_since_epoch().count());
    return error;
  }
  std::error_code resolve(const std::filesystem::path& path, std::filesystem::path& real) override {
    std::error_code error;
    real = std::filesystem::canonical(path, error);
    return error;
  }
  std::error_code rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    std::error_code error;
    std::filesystem::rename(from, to, error);
    return error;
  }
  std::error_code remove(const std::filesystem::path& path) override {
    std::error_code error;
    std::filesystem::remove(path, error);
    return error;
  }
};

/// A file on standard streams: no maps, and nothing stronger than a flush for `sync`.
class StreamFile : public File {
 public:
  StreamFile(FileSystem& files, std::filesystem::path path, std::fstream stream)
      : files_(files), path_(std::move(path)), stream_(std::move(stream)) {}

  std::error_code status(FileStatus& status) override { return files_.status(path_, status); }
  std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) override {
    stream_.clear();
    stream_.seekg(static_cast<std::streamoff>(offset));
    stream_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
    count = static_cast<std::size_t>(stream_.gcount());
    return answer(!stream_.bad() && (count > 0 || stream_.eof()));
  }
  std::error_code map(std::size_t, std::span<const std::byte>&) override {
    return std::make_error_code(std::errc::not_supported);
  }
  std::error_code write(std::span<const std::byte> from, std::size_t& count) override {
    stream_.write(reinterpret_cast<const char*>(from.data()), static_cast<std::streamsize>(from.size()));
    count = stream_ ? from.size() : 0;
    return answer(static_cast<bool>(stream_));
  }
  std::error_code sync() override { return answer(static_cast<bool>(stream_.flush())); }
  std::error_code close() override {
    stream_.clear();
    stream_.close();
    return answer(static_cast<bool>(stream_));
  }

 private:
  static std::error_code answer(bool good) {
    return good ? std::error_code() : std::make_error_code(std::errc::io_error);
  }

  FileSystem& files_;
  std::filesystem::path path_;
  std::fstream stream_;
};

/// The file system of machines without POSIX calls; works on all.
class StreamFiles : public PathCalls {
 public:
  std::error_code open(const std::filesystem::path& path, std::unique_ptr<File>& file) override {
    FileStatus found;
    if (const std::error_code error = status(path, found)) return error;
    if (found.kind == FileStatus::Kind::missing) return std::make_error_code(std::errc::no_such_file_or_directory);
    if (found.kind == FileStatus::Kind::folder) return std::make_error_code(std::errc::is_a_directory);
    if (found.kind == FileStatus::Kind::other) return std::make_error_code(std::errc::not_supported);
    return start(path, std::ios::in | std::ios::binary, file);
  }
  std::error_code create(const std::filesystem::path& path, std::optional<std::filesystem::perms> permissions,
                         std::unique_ptr<File>& file) override {
    FileStatus found;
    if (const std::error_code error = status(path, found)) return error;
    if (found.kind != FileStatus::Kind::missing) return std::make_error_code(std::errc::file_exists);
    std::error_code error = start(path, std::ios::out | std::ios::trunc | std::ios::binary, file);
    if (!error && permissions) std::filesystem::permissions(path, *permissions, error);
    return error;
  }
  std::error_code sync_folder(const std::filesystem::path&) override { return {}; }

 private:
  std::error_code start(const std::filesystem::path& path, std::ios::openmode mode, std::unique_ptr<File>& file) {
    std::fstream stream(path, mode);
    if (!stream) return std::make_error_code(std::errc::permission_denied);
    file = std::make_unique<StreamFile>(*this, path, std::move(stream));
    return {};
  }
};

#if !defined(_WIN32)

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

#endif

}  // namespace detail

/// The file system of the machine the program runs on.
inline FileSystem& system_files() {
#if defined(_WIN32)
  static detail::StreamFiles files;
#else
  static detail::PosixFiles files;
#endif
  return files;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
