// Built with other flags than the rest: wider vectors, and shape checks the other way round.
#include "answer.hpp"

Answers wide() { return answers(); }
