#pragma once
// The paths that a program writes to.
#include <rwkv/core/error.hpp>
#include <rwkv/system/system_files.hpp>

#include <filesystem>
#include <system_error>

namespace example {

/// Whether two paths lead to one file. It may have two names: by a link, or once with its folder.
inline bool is_same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code none, of_a, of_b;
  if (std::filesystem::equivalent(a, b, none)) return true;
  const auto full_a = std::filesystem::weakly_canonical(a, of_a), full_b = std::filesystem::weakly_canonical(b, of_b);
  return !of_a && !of_b && full_a == full_b;
}

/// Throws unless a file can be put where the path leads, in place of an old one or of none. To be called before the
/// work whose result is to be written there.
inline void check_target(const std::filesystem::path& path) {
  using Kind = rwkv::FileStatus::Kind;
  const auto kind_of = [&](const std::filesystem::path& examined) {
    rwkv::FileStatus status;
    const std::error_code error = rwkv::system_files().status(examined, status);
    rwkv::expects(!error, path.string(), ": cannot examine ", examined.string(), ": ", error.message());
    return status.kind;
  };
  const Kind kind = path.has_filename() ? kind_of(path) : Kind::folder;
  rwkv::expects(kind != Kind::folder, path.string(), ": this is a folder, so no file can be written there");
  rwkv::expects(kind != Kind::other, path.string(), ": this is not a regular file, so it cannot be replaced");
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  rwkv::expects(kind_of(folder) == Kind::folder, path.string(), ": there is no folder '", folder.string(), "'");
}

/// Throws if a model would be written where the state of a run is kept, beside a model of a shorter name.
inline void check_is_no_run(const std::filesystem::path& model) {
  rwkv::expects(!model.string().ends_with(".run.safetensors"), model.string(),
                ": this is the name of the file of a run; pass another --out");
}

}  // namespace example
