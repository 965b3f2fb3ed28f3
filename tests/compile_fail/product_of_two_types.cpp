// error: rwkv: a product computes in one type; convert x first
#include <rwkv/blocks.hpp>

using namespace rwkv;

void run(Cpu& be, Mat<float> y, Mat<double> x, Mat<float> w) { be.gemm(mul(y, x, transposed(w))); }
