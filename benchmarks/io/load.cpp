/// Time to load a file by its size, from a kilobyte to a gigabyte, and by the number of its tensors: both must grow no
/// faster than the file. Prints a CSV. Arguments: the folder for the files, 2 GB; the largest width of a model, 3072.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "../../tests/io/builders.hpp"
#include "../limits.hpp"
#include "../synthetic.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/system/crc32.hpp"

namespace {

using Net = rwkv::LanguageModel<rwkv::V4, rwkv::AsStored<float>, rwkv::Cpu>;
using Official = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;
using Path = std::filesystem::path;

/// The median of repetitions that take a fifth of a second together, at least three.
double seconds_of(const std::function<void()>& work) {
  std::vector<double> times;
  for (const auto begun = bench::Clock::now(); times.size() < 3 || bench::seconds_since(begun) < 0.2;) {
    const auto start = bench::Clock::now();
    work();
    times.push_back(bench::seconds_since(start));
  }
  return bench::median(times);
}

void row(const std::string& file, std::size_t tensors, double bytes, const std::function<void()>& work) {
  const double seconds = seconds_of(work);
  std::printf("%s,%zu,%.0f,%.3g,%.3g,%.3g\n", file.c_str(), tensors, bytes, seconds * 1e6, seconds * 1e9 / bytes,
              seconds * 1e6 / static_cast<double>(tensors));
  std::fflush(stdout);
}

/// As torch.save writes a state_dict.
void save_pth(const Official& net, const Path& path) {
  build::Zip zip;
  std::string items;
  for (const auto& parameter : net.parameters()) {
    const auto bytes = std::as_bytes(parameter.numbers());
    const auto count = static_cast<std::int64_t>(parameter.numbers().size());
    const std::string key = std::to_string(zip.entries.size());
    std::vector<std::int64_t> shape, strides;
    for (const rwkv::Index size : parameter.shape.span()) shape.push_back(size);
    strides.assign(shape.size(), 1);
    for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
    items += build::word(parameter.name) + build::tensor_of(build::storage("FloatStorage", key, count), 0,
                                                            build::tuple(shape), build::tuple(strides));
    build::Entry entry{"m/data/" + key, build::text(bytes)};
    entry.crc = rwkv::detail::crc32(bytes);
    zip.entries.push_back(std::move(entry));
  }
  zip.entries.insert(zip.entries.begin(), {build::Entry{"m/data.pkl", build::dict(items)},
                                           build::Entry{"m/byteorder", "little"}, build::Entry{"m/version", "3\n"}});
  rwkv::write_atomically(rwkv::system_files(), path, [&](rwkv::FileWriter& file) { file.write(zip.file()); });
}

void by_size(const Path& folder, rwkv::Index largest) {
  const Path safetensors = folder / "model.safetensors", pth = folder / "model.pth";
  for (const rwkv::Index width : {2, 8, 32, 128, 512, 1024, 2048, 3072}) {
    if (width > largest) break;
    std::size_t tensors = 0;
    {
      Official net({.vocab = 4, .width = width, .depth = 2});
      bench::FillParameters fill;
      for (auto& parameter : net.parameters()) fill(parameter, parameter);
      tensors = net.parameters().size();
      rwkv::save_checkpoint(net, safetensors);
      save_pth(net, pth);
    }
    for (const Path& file : {safetensors, pth}) {
      const auto bytes = static_cast<double>(std::filesystem::file_size(file));
      const std::string name = file.extension().string();
      row(name + " loaded", tensors, bytes, [&] { rwkv::load_checkpoint<Net>(file, {rwkv::Access::loaded}); });
      row(name + " mapped", tensors, bytes, [&] { rwkv::load_checkpoint<Net>(file, {rwkv::Access::mapped}); });
      row(name + " mapped unchecked", tensors, bytes, [&] {
        rwkv::load_checkpoint<Net>(file, {rwkv::Access::mapped, false, false});
      });
    }
  }
}

/// Tensors of four bytes each, so that all is names.
void by_tensors(const Path& folder, rwkv::Index largest) {
  const Path path = folder / "names.safetensors";
  for (const std::size_t count : {10u, 100u, 1000u, 10'000u, 100'000u, 500'000u}) {
    if (count > 200 * static_cast<std::size_t>(largest)) break;
    std::string names = "{";
    for (std::size_t i = 0; i < count; ++i) {
      names += (i == 0 ? "\"tensor " : ",\"tensor ") + std::to_string(i) +
               R"(":{"dtype":"F32","shape":[1],"data_offsets":[)" + std::to_string(4 * i) + "," +
               std::to_string(4 * i + 4) + "]}";
    }
    const std::string whole = build::safetensors(names + "}", std::string(4 * count, '\0'));
    rwkv::write_atomically(rwkv::system_files(), path, [&](rwkv::FileWriter& file) { file.write(whole); });
    row("names", count, static_cast<double>(whole.size()), [&] { rwkv::open_tensors(path); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Path folder = (argc > 1 ? Path(argv[1]) : std::filesystem::temp_directory_path()) / "rwkv-bench-load";
  std::filesystem::create_directories(folder);
  const rwkv::Index largest = argc > 2 ? std::stol(argv[2]) : 3072;
  std::printf("file,tensors,bytes,us,ns_per_byte,us_per_tensor\n");
  by_size(folder, largest);
  by_tensors(folder, largest);
  std::filesystem::remove_all(folder);
}
