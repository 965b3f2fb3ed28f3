#pragma once
/// The calls through which the library touches files, as a policy that a test can make fail.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What a path leads to, symbolic links followed.
struct FileStatus {
  /// What a path leads to.
  enum class Kind { missing, regular, folder, other };
  Kind kind = Kind::missing;  ///< what the path leads to
  std::uint64_t size = 0;     ///< bytes of a regular file
  std::int64_t modified = 0;  ///< Time of the last change; the unit and the start are the file system's own.
  std::filesystem::perms permissions = std::filesystem::perms::unknown;  ///< of a regular file
};

/// An open file. Every member is one call to the system: it may be interrupted or do less than asked, and reports by an
/// error code; the loops, the retries and the sentences live above. The destructor closes and ends the mapping.
class File {
 public:
  virtual ~File() = default;
  /// What is known about the open file.
  virtual std::error_code status(FileStatus& status) = 0;
  /// Reads at most into.size() bytes from `offset`; count = 0 means the end of the file.
  virtual std::error_code read(std::uint64_t offset, std::span<std::byte> into, std::size_t& count) = 0;
  /// Maps the first `size` bytes until this object ends, to be read and written: writing makes a private copy of the
  /// page and never reaches the file. errc::not_supported where there are no maps.
  virtual std::error_code map(std::size_t size, std::span<const std::byte>& bytes) = 0;
  /// Appends at most from.size() bytes.
  virtual std::error_code write(std::span<const std::byte> from, std::size_t& count) = 0;
  /// Returns once the content is on the disk.
  virtual std::error_code sync() = 0;
  /// Closes it; it is not used afterwards.
  virtual std::error_code close() = 0;
};

/// The name of the temporary file number i of a folder: .rwkv-0.tmp, and so on.
inline std::string temporary_name(int i) { return join(".rwkv-", i, ".tmp"); }
/// Whether that is the name of a temporary file. Such names are for this library alone.
inline bool is_temporary(std::string_view name) {
  constexpr std::string_view begin = ".rwkv-", end = ".tmp";
  if (name.size() <= begin.size() + end.size() || !name.starts_with(begin) || !name.ends_with(end)) return false;
  name = name.substr(begin.size(), name.size() - begin.size() - end.size());
  return name.find_first_not_of("0123456789") == std::string_view::npos;
}

/// The file system. Implementations must be usable from several threads at once and outlive what they opened.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// Opens for reading; must not block on a path that is no regular file.
  virtual std::error_code open(const std::filesystem::path& path, std::unique_ptr<File>& file) = 0;
  /// Creates a file for writing; errc::file_exists when there is one. Absent permissions are the user's default. The
  /// file counts as in use until the object ends, closed or not; see remove_abandoned.
  virtual std::error_code create(const std::filesystem::path& path, std::optional<std::filesystem::perms> permissions,
                                 std::unique_ptr<File>& file) = 0;
  /// A missing file is a status, not an error.
  virtual std::error_code status(const std::filesystem::path& path, FileStatus& status) = 0;
  /// The path of an existing file with all symbolic links followed.
  virtual std::error_code resolve(const std::filesystem::path& path, std::filesystem::path& real) = 0;
  /// Replaces `to` in one step.
  virtual std::error_code rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// Removes a file.
  virtual std::error_code remove(const std::filesystem::path& path) = 0;
  /// Returns once renames inside the folder are on the disk.
  virtual std::error_code sync_folder(const std::filesystem::path& folder) = 0;
  /// Removes the temporary files in a folder (see is_temporary) that are in no use: a process was killed that wrote them.
  /// Does nothing where the system cannot tell.
  virtual void remove_abandoned(const std::filesystem::path&) {}
};

}  // namespace RWKV_ABI
}  // namespace rwkv
