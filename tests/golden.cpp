#include "golden.hpp"

#include <rwkv/io/tensor_file.hpp>

#include <cstdint>
#include <cstring>

namespace golden {
namespace {

template <class T>
void widen(const rwkv::TensorView& tensor, Tensor& out) {
  out.values.resize(tensor.bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    T value;
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
    out.values[i] = static_cast<double>(value);
  }
}

}  // namespace

std::vector<std::filesystem::path> files(const std::string& sub, const std::string& prefix, std::size_t count) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder() / sub)) {
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  }
  rwkv::expects(found.size() == count, folder().string(), ": ", found.size(), " golden files ", sub, "/", prefix,
                "*, there should be ", count);
  std::sort(found.begin(), found.end());
  return found;
}

struct File::Contents {
  rwkv::TensorFile file;
};

File::File(const std::filesystem::path& path)
    : contents_(std::make_shared<const Contents>(Contents{rwkv::open_tensors(path)})) {}

bool File::has(const std::string& name) const { return contents_->file.find(name) != nullptr; }

const std::string& File::metadata(const std::string& key) const { return contents_->file.metadata().at(key); }

Tensor File::operator[](const std::string& name) const {
  const rwkv::TensorFile& file = contents_->file;
  const rwkv::TensorView* tensor = file.find(name);
  rwkv::expects(tensor != nullptr, file.path().string(), ": no tensor ", name);
  Tensor out{tensor->shape, {}, tensor->dtype == rwkv::DType::f32};
  switch (tensor->dtype) {
    case rwkv::DType::f64: widen<double>(*tensor, out); break;
    case rwkv::DType::f32: widen<float>(*tensor, out); break;
    case rwkv::DType::i32: widen<std::int32_t>(*tensor, out); break;
    default: rwkv::fail(file.path().string(), ": ", name, " has a type the tests do not read");
  }
  return out;
}

}  // namespace golden
