// Continues a prompt on the CPU. The program is generate.hpp; ../06_cuda runs the same on a GPU.
#include "generate.hpp"

int main(int argc, char** argv) { return example::generate<rwkv::Cpu>(argc, argv); }
