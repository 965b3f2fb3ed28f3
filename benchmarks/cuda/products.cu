/// Matrix products of one row, of a few, and squares, by our own kernels beside those of cuBLASLt.
#include "products.cuh"

#include <map>

namespace bench {

/// The same squares by cuBLASLt itself; seconds by shape and number. Empty where the program is built without it.
std::map<std::string, double> add_cublaslt(Suite& suite);

namespace {

struct Weights {
  Index out, in;
  double goal;  ///< share of the bandwidth
};
constexpr Weights vectors[] = {{4096, 4096, 0.80}, {16384, 4096, 0.85}, {4096, 16384, 0.85}, {65536, 4096, 0.90}};

template <class X, class W>
void few_rows(Suite& suite) {
  for (const Weights& weights : vectors) {
    if (suite.quick() && weights.out != 4096) continue;
    product<X, W>(suite, suite.backend(), "gemv", {1, weights.out, weights.in}, share(weights.goal));
  }
  for (const Index rows : {2, 4, 8, 16, 32, 64, 128, 160}) {
    product<X, W>(suite, suite.backend(), "skinny product", {rows, 16384, 4096}, 0);
  }
}

}  // namespace

void add_products(Suite& suite) {
  suite.section("Products of few rows");
  few_rows<float, rwkv::bf16>(suite);
  few_rows<rwkv::bf16, rwkv::bf16>(suite);
  few_rows<float, float>(suite);

  suite.section("Products");
  const auto theirs = add_cublaslt(suite);
  for (const auto& [name, seconds] : theirs) {
    if (name == "8192x8192x8192/bf16") suite.saw_matrix_rate(ProductShape{8192, 8192, 8192}.flops() / seconds);
  }
  // The goal of our own kernels is 55 % of cuBLASLt.
  square_products(suite, suite.backend(), "own", [&](const ProductShape& shape, const std::string& number) {
    const auto found = theirs.find(shape.name() + "/" + number);
    if (found == theirs.end()) return 0.0;
    const Work work = number == "fp32"   ? work_of<float, float>(shape)
                      : number == "bf16" ? work_of<rwkv::bf16, rwkv::bf16>(shape)
                                         : work_of<float, rwkv::bf16>(shape);
    return share(0.55) * found->second / suite.floor_of(work);
  });
  const ProductShape step{8192, 3072, 768};
  for (const auto& [name, direction] :
       {std::pair{"own", Direction::forward}, std::pair{"own, dx", Direction::input_gradient},
        std::pair{"own, dw", Direction::weight_gradient}}) {
    product<rwkv::bf16, rwkv::bf16>(suite, suite.backend(), name, step, 0, direction);
    product<float, float>(suite, suite.backend(), name, step, 0, direction);
  }
}

}  // namespace bench
