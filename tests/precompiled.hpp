/// What most test files include, parsed once for all of them.
#include <doctest/doctest.h>

#include "configs.hpp"
#include "golden.hpp"
#include "instances.hpp"
