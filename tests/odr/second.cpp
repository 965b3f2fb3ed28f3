#include "answer.hpp"

Answers second() { return answers(); }
