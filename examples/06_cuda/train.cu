// Trains on a GPU: the program of ../03_train with another backend.
#include <rwkv/cuda.cuh>

#include "../03_train/train.hpp"

int main(int argc, char** argv) { return example::train<rwkv::Cuda>(argc, argv); }
