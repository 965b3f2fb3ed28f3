#include <rwkv/cuda.cuh>

#include <iostream>

int main() {
  try {
    rwkv::Cuda device;
    float* const numbers = device.allocate<float>(4);
    device.fill(rwkv::matrix(numbers, 2, 2), 1.0f);
    device.sync();
    device.free(numbers);
  } catch (const rwkv::Error& error) {
    std::cout << error.what() << '\n';  // without a GPU
  }
}
