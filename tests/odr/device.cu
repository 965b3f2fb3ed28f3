// The translation unit of a CUDA compiler: the CPU half of the library works there as everywhere.
#include "answer.hpp"

Answers wide() { return answers(); }
