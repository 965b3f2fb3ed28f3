#pragma once
/// The file system of every machine: standard streams.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "rwkv/config.hpp"
#include "rwkv/system/file_system.hpp"

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

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
