#pragma once
/// Golden numbers: files made once with the official code; see the README beside them.
#include <rwkv/core/extent.hpp>
#include <rwkv/core/number.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "numbers.hpp"

namespace golden {

using rwkv::Index;

inline std::filesystem::path folder() { return RWKV_GOLDEN_DIR; }

/// Whether the golden data is the subset in the repository; SUBSET.md there lists what is missing.
inline bool is_subset() { return std::filesystem::exists(folder() / "SUBSET.md"); }

/// The files under `sub` whose names start with `prefix`, sorted. Another number of them than `count` is an error: a case
/// that was lost is a failure.
std::vector<std::filesystem::path> files(const std::string& sub, const std::string& prefix, std::size_t count);

/// A tensor widened to double.
struct Tensor {
  std::vector<Index> shape;
  std::vector<double> values;
  bool rounded = false;  ///< the file holds the double-precision result as float

  Index size(std::size_t axis) const { return shape.at(axis); }
  template <class T>
  std::vector<T> as() const {
    std::vector<T> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(), [](double v) { return rwkv::narrow<T>(v); });
    return out;
  }
};

/// One golden file. Read in golden.cpp, once for all test programs: nothing of the library is in these signatures, so
/// they link whatever a program is compiled with.
class File {
 public:
  explicit File(const std::filesystem::path& path);

  bool has(const std::string& name) const;
  const std::string& metadata(const std::string& key) const;
  Tensor operator[](const std::string& name) const;

 private:
  struct Contents;
  std::shared_ptr<const Contents> contents_;
};

/// The tolerance for plain arithmetic in T against a golden result, relative to the largest number of the result.
template <class T>
double tolerance(const Tensor& want) {
  if (!std::is_same_v<T, double>) return 1e-5;
  return want.rounded ? 1e-7 : 1e-11;
}

/// The relative error in units of the tolerance for T.
template <class T, class Got>
double error_ratio(const Got& got, const Tensor& want) {
  return relative_error(got, want.values) / tolerance<T>(want);
}

}  // namespace golden
