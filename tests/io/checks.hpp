#pragma once
/// What the tests of files share: the check that a file is refused in the right words, and folders that clean up.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "builders.hpp"
#include "rwkv/io/tensor_file.hpp"

namespace build {

/// Opening must throw an Error whose text holds the file's name and all of `words`.
inline void check_refused(std::string_view what, const std::string& file, const std::vector<std::string>& words) {
  CAPTURE(what);
  std::string said;
  try {
    rwkv::open_tensors(bytes(file), "bad.file");
  } catch (const rwkv::Error& error) {
    said = error.what();
  }
  CAPTURE(said);
  REQUIRE_FALSE(said.empty());
  CHECK(said.find("bad.file") != std::string::npos);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(said.find(w) != std::string::npos);
  }
}

/// An empty folder that is removed at the end.
class Folder {
 public:
  Folder() {
    for (int i = 0; path_.empty(); ++i) {
      const auto candidate = std::filesystem::temp_directory_path() / ("rwkv-io-test-" + std::to_string(i));
      if (std::filesystem::create_directory(candidate)) path_ = candidate;
    }
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

  std::size_t count() const {
    std::size_t n = 0;
    for (auto it = std::filesystem::directory_iterator(path_); it != std::filesystem::directory_iterator(); ++it) ++n;
    return n;
  }

 private:
  std::filesystem::path path_;
};

inline void put(const std::filesystem::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}
inline std::string get(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace build
