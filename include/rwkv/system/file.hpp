#pragma once
/// Reading a file as bytes and replacing a file in one step.
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How the bytes of a file come into memory.
enum class Access {
  automatic,  ///< Loaded below 64 MB, mapped from there on.
  mapped,     ///< Read on first use through a memory map. The file must not change while it is in use: a program that
              ///< reads past the new end of a shortened file is killed by the system. See Bytes::check_unchanged.
  loaded,     ///< Copied once; later changes of the file have no effect.
};

namespace detail {

/// The path as UTF-8.
std::string path_text(const std::filesystem::path& path);
/// The folder that a file is in.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace detail

/// The content of one file, or of memory that the caller keeps. Copies share the content.
class Bytes {
 public:
  /// Wraps memory that must outlive every copy of this object; `name` stands for the path in errors.
  Bytes(std::span<const std::byte> memory, std::string name) : view_(memory), name_(std::move(name)) {}

  /// The bytes.
  std::span<const std::byte> view() const { return view_; }
  /// Of the file, for error sentences.
  const std::string& name() const { return name_; }
  /// Whether they lie in the file itself.
  bool is_mapped() const { return content_ && content_->file; }

  /// Keeps the bytes in memory while it lives; null when the caller owns them.
  std::shared_ptr<const void> keep_alive() const { return content_; }

  /// Throws an Error when a mapped file has another size or another time of change than when it was opened. Replacing
  /// the file by a rename is no change: the map goes on showing the old file. Always passes for loaded bytes.
  void check_unchanged() const;

  friend Bytes read_file(const std::filesystem::path& path, Access access, FileSystem& files);

 private:
  struct Content {
    std::unique_ptr<std::byte[]> copy;
    std::unique_ptr<File> file;  // Open while mapped.
    FileStatus opened;
  };

  std::shared_ptr<const Content> content_;
  std::span<const std::byte> view_;
  std::string name_;
};

/// Reads or maps a whole file. Throws an Error naming the path when it is missing, no regular file, empty, unreadable
/// or larger than the memory. `files` must outlive the bytes.
Bytes read_file(const std::filesystem::path& path, Access access = Access::automatic,
                FileSystem& files = system_files());

/// Appends bytes to a file that is being written. Small pieces are gathered so that they cost no system call each.
class FileWriter {
 public:
  /// Writes to `file`, which errors call `name`.
  FileWriter(File& file, std::string name) : file_(file), name_(std::move(name)) {}

  /// Appends bytes. Errors: those of the file.
  void write(std::span<const std::byte> bytes);
  /// Appends text.
  void write(std::string_view text) { write(detail::as_bytes(text)); }
  /// Writes out what is buffered. Errors: those of the file.
  void flush();

 private:
  static constexpr std::size_t gathered_from = 65536;

  void write_through(std::span<const std::byte> bytes);

  File& file_;
  std::string name_;
  std::vector<std::byte> pending_;
};

/// Writes the file at `path` so that at every moment, a crash included, the path leads to the whole old content or to
/// the whole new one: the content goes to a temporary file in the same folder, to the disk, and then replaces the old
/// file in one step. `content` is called with a FileWriter. The permissions of a replaced file are kept, a symbolic
/// link to a file is followed. On failure an Error names the path, the temporary file is gone and the old file
/// untouched; only when the very last step fails, which makes the replacement itself durable, the new file is in place
/// already (and said so). A process that is killed leaves its temporary file; the next call for a file in that folder
/// removes it.
void write_atomically(FileSystem& files, const std::filesystem::path& path,
                      const std::function<void(FileWriter&)>& content);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/file.ipp"
#endif
