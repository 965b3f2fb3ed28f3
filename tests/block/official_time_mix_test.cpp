/// Oracle: the timemix goldens, for every version.
#include "official.hpp"

using namespace rwkv;
using config::Standalone;
using namespace official;

namespace {

/// The recurrent state in the layout of WKVState: of RWKV-4 aa, bb and pp, each [batch, width], interleaved to [batch, 3,
/// width]; of later versions a matrix for each head. Empty when the file has none.
template <class Version>
std::vector<double> wkv_of(const golden::File& file, const std::string& prefix, Index batch) {
  if (file.has(prefix + "wkv")) {
    const auto wkv = file[prefix + "wkv"];
    return config::official_state<Version>(wkv.values, wkv.size(3));
  }
  if (!file.has(prefix + "aa")) return {};
  std::vector<double> numbers;
  const auto aa = file[prefix + "aa"].values, bb = file[prefix + "bb"].values;
  // The cotangent of the final exponent must have no effect, so it gets an arbitrary value.
  const auto pp = file.has(prefix + "pp") ? file[prefix + "pp"].values : std::vector<double>(aa.size(), 7.0);
  const auto width = static_cast<Index>(aa.size()) / batch;
  for (Index b = 0; b < batch; ++b) {
    for (const auto* component : {&aa, &bb, &pp}) {
      numbers.insert(numbers.end(), component->begin() + b * width, component->begin() + (b + 1) * width);
    }
  }
  return numbers;
}

/// Component n, [batch, width], of a state [batch, 3, width].
template <class T>
std::vector<T> component_of(const std::vector<T>& state, Index n, Index batch, Index width) {
  std::vector<T> component;
  for (Index b = 0; b < batch; ++b) {
    const auto begin = state.begin() + (b * 3 + n) * width;
    component.insert(component.end(), begin, begin + width);
  }
  return component;
}

/// Compares a recurrent state with the tensors of the file that start with `prefix`.
template <class Version, class T>
void check_wkv(const std::vector<T>& state, const golden::File& file, const std::string& prefix, Index batch,
               Index width, double limit) {
  if (file.has(prefix + "wkv")) {
    const auto wkv = file[prefix + "wkv"];
    CHECK(golden::error_ratio<T>(config::official_state<Version>(state, wkv.size(3)), wkv) < limit);
  }
  const std::string components[] = {"aa", "bb", "pp"};
  for (Index n = 0; n < 3; ++n) {
    CAPTURE(components[n]);
    if (!file.has(prefix + components[n])) continue;
    CHECK(golden::error_ratio<T>(component_of(state, n, batch, width), file[prefix + components[n]]) < limit);
  }
}

template <class Version, class C>
void check_time_mix() {
  using T = typename C::scalar;
  using Goldens = config::Goldens<Version>;
  for (const auto& path : golden::files("ops", Goldens::time_mix, Goldens::time_mixes)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1), width = x.size(2);
    CAPTURE(path.filename().string());
    auto block = block_of<TimeMix<Version, T, typename C::Backend>>(file, C::backend(), [&](const std::string& name) {
      return name == "shift" ? file["in.state.att_x"].values : wkv_of<Version>(file, "in.state.", batch);
    });
    CHECK(golden::error_ratio<T>(block.forward(x.as<T>(), batch, time), file["out.y"]) < 1);
    CHECK(golden::error_ratio<T>(block.state("shift"), file["out.state.att_x"]) < 1);
    check_wkv<Version>(block.state("wkv"), file, "out.state.", batch, width, 1);
    if (file.has("out.v_first")) CHECK(golden::error_ratio<T>(block.first_value(), file["out.v_first"]) < 1);
  }
}

template <class Version, class C>
void check_time_mix_gradients() {
  using T = typename C::scalar;
  using Goldens = config::Goldens<Version>;
  for (const auto& path : golden::files("ops", Goldens::time_mix, Goldens::time_mixes)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1), width = x.size(2);
    // With a single token, rounding errors in the gradient do not average out.
    const double limit = path.string().find("_t1_") != std::string::npos && std::is_same_v<T, float> ? 10 : 1;
    CAPTURE(path.filename().string());
    const auto states = [&](const std::string& of) {
      return [&, of](const std::string& name) {
        if (name == "shift") return file.has(of + "att_x") ? file[of + "att_x"].values : std::vector<double>();
        return wkv_of<Version>(file, of, batch);
      };
    };
    auto block = block_of<TimeMix<Version, T, typename C::Backend>>(file, C::backend(), states("in.state."));
    const auto dx = block.forward_and_backward(x.as<T>(), time, file["cot.y"].as<T>(), states("cot.state."));
    CHECK(golden::error_ratio<T>(dx, file["grad.x"]) < limit);
    check_gradients<T>(block, file, limit);
    CHECK(golden::error_ratio<T>(block.state_gradient("shift"), file["grad.state.att_x"]) < limit);
    check_wkv<Version>(block.state_gradient("wkv"), file, "grad.state.", batch, width, limit);
    if (file.has("grad.v_first")) {
      CHECK(golden::error_ratio<T>(block.first_value_cotangent(), file["grad.v_first"]) < limit);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the time mixes reproduce the goldens", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_time_mix<V, C>(); });
#ifdef RWKV_TEST_ALL
  if constexpr (std::is_same_v<typename C::scalar, double>) {  // what is their own is the table of parameters
    check_time_mix<V5_0, C>();
    check_time_mix<V5_1, C>();
  }
#endif
}

TEST_CASE_TEMPLATE("the gradients of the time mixes are those of the goldens", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_time_mix_gradients<V, C>(); });
#ifdef RWKV_TEST_ALL
  if constexpr (std::is_same_v<typename C::scalar, double>) {
    check_time_mix_gradients<V5_0, C>();
    check_time_mix_gradients<V5_1, C>();
  }
#endif
}
