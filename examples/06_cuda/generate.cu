// Continues a prompt on a GPU: the program of ../01_generate with another backend.
#include <rwkv/cuda.cuh>

#include "../01_generate/generate.hpp"

int main(int argc, char** argv) { return example::generate<rwkv::Cuda>(argc, argv); }
