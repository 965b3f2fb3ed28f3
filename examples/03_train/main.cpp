// Trains on the CPU. The program is train.hpp; ../06_cuda runs the same on a GPU.
#include "train.hpp"

int main(int argc, char** argv) { return example::train<rwkv::Cpu>(argc, argv); }
