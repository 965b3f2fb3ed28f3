#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

RWKV_BODY std::string path_text(const std::filesystem::path& path) {
  const std::u8string text = path.u8string();
  return std::string(text.begin(), text.end());
}

RWKV_BODY std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// Repeats a system call that a signal interrupted.
template <class F>
std::error_code retried(F call) {
  std::error_code error = call();
  while (error == std::errc::interrupted) error = call();
  return error;
}

/// Of bytes that are read or written, as many as may pass between two reports.
template <class T>
std::span<T> at_a_time(std::span<T> bytes) {
  constexpr std::size_t reported = std::size_t{4} << 20;
  return is_watched() ? bytes.first(std::min(bytes.size(), reported)) : bytes;
}

inline bool same_version(const FileStatus& a, const FileStatus& b) {
  return a.size == b.size && a.modified == b.modified;
}

}  // namespace detail

RWKV_BODY void Bytes::check_unchanged() const {
  if (!is_mapped()) return;
  FileStatus now;
  const std::error_code error = detail::retried([&] { return content_->file->status(now); });
  expects(!error, name_, ": the file cannot be examined any more: ", error.message());
  expects(detail::same_version(now, content_->opened), name_, ": the file was changed while it was in use (it had ",
          content_->opened.size, " bytes and has ", now.size,
          " now); open it with Access::loaded to be safe from that");
}

RWKV_BODY Bytes read_file(const std::filesystem::path& path, Access access, FileSystem& files) {
  constexpr std::uint64_t mapped_from = std::uint64_t{64} << 20;
  Bytes bytes({}, detail::path_text(path));
  const std::string& name = bytes.name_;

  std::unique_ptr<File> file;
  std::error_code error = detail::retried([&] { return files.open(path, file); });
  expects(!error, name, ": cannot open the file: ", error.message());
  auto content = std::make_shared<Bytes::Content>();
  FileStatus& opened = content->opened;
  error = detail::retried([&] { return file->status(opened); });
  expects(!error, name, ": cannot examine the file: ", error.message());
  expects(opened.kind != FileStatus::Kind::folder, name, ": this is a folder, not a file");
  expects(opened.kind == FileStatus::Kind::regular, name, ": this is not a regular file");
  expects(opened.size != 0, name, ": the file is empty");
  const auto size = Checked(opened.size).to<std::size_t>(name, ": the file does not fit into the address space");

  if (access == Access::mapped || (access == Access::automatic && opened.size >= mapped_from)) {
    error = detail::retried([&] { return file->map(size, bytes.view_); });
    if (!error) {
      content->file = std::move(file);
      bytes.content_ = std::move(content);
      return bytes;
    }
    expects(access == Access::automatic && error == std::errc::not_supported, name,
            ": cannot map the file: ", error.message());
  }

  content->copy.reset(new (std::nothrow) std::byte[size]);
  expects(content->copy != nullptr, name, ": no memory for the ", size, " bytes of the file");
  const std::span<std::byte> all(content->copy.get(), size);
  detail::Reporting reporting(Phase::load, static_cast<Index>(size));
  for (std::size_t done = 0; done < size;) {
    std::size_t count = 0;
    const auto rest = detail::at_a_time(all.subspan(done));
    error = detail::retried([&] { return file->read(done, rest, count); });
    expects(!error, name, ": cannot read the file: ", error.message());
    expects(count != 0, name, ": the file ended after ", done, " of its ", size, " bytes while it was read");
    done += count;
    detail::advance(detail::Unit::bytes, static_cast<Index>(count));
  }
  FileStatus now;
  error = detail::retried([&] { return file->status(now); });
  expects(!error && detail::same_version(now, opened), name, ": the file was changed while it was read");
  bytes.view_ = all;
  bytes.content_ = std::move(content);
  return bytes;
}

RWKV_BODY void FileWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > gathered_from - pending_.size()) flush();
  if (bytes.size() >= gathered_from) write_through(bytes);
  else pending_.insert(pending_.end(), bytes.begin(), bytes.end());
}

RWKV_BODY void FileWriter::flush() {
  write_through(pending_);
  pending_.clear();
}

RWKV_BODY void FileWriter::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    std::size_t count = 0;
    const auto rest = detail::at_a_time(bytes);
    const std::error_code error = detail::retried([&] { return file_.write(rest, count); });
    expects(!error, name_, ": cannot write the file: ", error.message());
    expects(count != 0, name_, ": cannot write the file: the system took none of ", bytes.size(), " bytes");
    bytes = bytes.subspan(count);
    detail::advance(detail::Unit::bytes, static_cast<Index>(count));
  }
}

namespace detail {

/// A file beside the one to be replaced; it is removed unless the replacement happened.
class TemporaryFile {
 public:
  TemporaryFile(FileSystem& files, const std::filesystem::path& folder,
                std::optional<std::filesystem::perms> permissions, std::string_view name)
      : files_(files) {
    constexpr int most = 1000;
    std::error_code error = std::make_error_code(std::errc::file_exists);
    for (int i = 0; i < most && error == std::errc::file_exists; ++i) {
      path_ = folder / temporary_name(i);
      error = retried([&] { return files_.create(path_, permissions, file_); });
    }
    expects(!error, name, ": cannot create the temporary file ", path_text(path_), ": ", error.message());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (path_.empty()) return;
    // Nothing can be reported from here, and the error that led here is being reported already. The file counts as in use
    // until it is removed, or else another process might remove it, and this one the next of that name.
    static_cast<void>(file_->close());
    static_cast<void>(files_.remove(path_));
  }

  File& file() { return *file_; }

  void replace(const std::filesystem::path& target, std::string_view name) {
    // A sync that failed is not repeated: the system may have dropped the pages that it could not write.
    std::error_code error = retried([&] { return file_->sync(); });
    expects(!error, name, ": cannot bring the file to the disk: ", error.message());
    error = file_->close();
    expects(!error || error == std::errc::interrupted, name, ": cannot close the file: ", error.message());
    error = files_.rename(path_, target);
    expects(!error, name, ": cannot replace the file: ", error.message());
    path_.clear();
  }

 private:
  FileSystem& files_;
  std::filesystem::path path_;
  std::unique_ptr<File> file_;
};

}  // namespace detail

RWKV_BODY void write_atomically(FileSystem& files, const std::filesystem::path& path,
                                const std::function<void(FileWriter&)>& content) {
  const std::string name = detail::path_text(path);
  FileStatus old;
  std::error_code error = detail::retried([&] { return files.status(path, old); });
  expects(!error, name, ": cannot examine the file: ", error.message());
  expects(old.kind != FileStatus::Kind::folder, name, ": this is a folder, so no file can be written there");
  expects(old.kind != FileStatus::Kind::other, name, ": this is not a regular file, so it cannot be replaced");
  std::filesystem::path target = path;
  std::optional<std::filesystem::perms> permissions;
  if (old.kind == FileStatus::Kind::regular) {
    permissions = old.permissions;
    error = detail::retried([&] { return files.resolve(path, target); });
    expects(!error, name, ": cannot follow the path: ", error.message());
  }
  const std::filesystem::path folder = detail::folder_of(target);

  files.remove_abandoned(folder);
  {
    detail::TemporaryFile temporary(files, folder, permissions, name);
    FileWriter writer(temporary.file(), name);
    content(writer);
    writer.flush();
    temporary.replace(target, name);
  }
  error = detail::retried([&] { return files.sync_folder(folder); });
  const bool unknown_there = error == std::errc::invalid_argument || error == std::errc::not_supported;
  expects(!error || unknown_there, name,
          ": the new file is in place, but the folder cannot be brought to the disk: ", error.message(),
          "; a power loss may bring the old file back");
}

}  // namespace RWKV_ABI
}  // namespace rwkv
