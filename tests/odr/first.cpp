#include "answer.hpp"

Answers first() { return answers(); }
