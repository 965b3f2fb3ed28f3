#pragma once
/// Golden numbers: files made once with the official code; see the README beside them.
#include <rwkv/core/number.hpp>
#include <rwkv/io/tensor_file.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "numbers.hpp"

namespace golden {

using rwkv::Index;

inline std::filesystem::path folder() { return RWKV_GOLDEN_DIR; }

/// Whether the golden data is the subset in the repository; SUBSET.md there lists what is missing.
inline bool is_subset() { return std::filesystem::exists(folder() / "SUBSET.md"); }

/// The files under `sub` whose names start with `prefix`, sorted. Throws unless there are `count`, so that no golden
/// case can get lost unnoticed.
inline std::vector<std::filesystem::path> files(const std::string& sub, const std::string& prefix, std::size_t count) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder() / sub)) {
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  }
  rwkv::expects(found.size() == count, folder().string(), ": ", found.size(), " golden files ", sub, "/", prefix,
                "*, there should be ", count);
  std::sort(found.begin(), found.end());
  return found;
}

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

/// One golden file.
class File {
 public:
  explicit File(const std::filesystem::path& path) : file_(rwkv::open_tensors(path)) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  const std::string& metadata(const std::string& key) const { return file_.metadata().at(key); }

  Tensor operator[](const std::string& name) const {
    const rwkv::TensorView* tensor = file_.find(name);
    rwkv::expects(tensor != nullptr, file_.path().string(), ": no tensor ", name);
    Tensor out{tensor->shape, {}, tensor->dtype == rwkv::DType::f32};
    switch (tensor->dtype) {
      case rwkv::DType::f64: widen<double>(*tensor, out); break;
      case rwkv::DType::f32: widen<float>(*tensor, out); break;
      case rwkv::DType::i32: widen<std::int32_t>(*tensor, out); break;
      default: rwkv::fail(file_.path().string(), ": ", name, " has a type the tests do not read");
    }
    return out;
  }

 private:
  template <class T>
  static void widen(const rwkv::TensorView& tensor, Tensor& out) {
    out.values.resize(tensor.bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < out.values.size(); ++i) {
      T value;
      std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
      out.values[i] = static_cast<double>(value);
    }
  }

  rwkv::TensorFile file_;
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
