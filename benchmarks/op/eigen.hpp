#pragma once
/// Eigen, to be included before anything that includes it.
// False warning of g++ 12: the AVX-512 header, which Eigen's kernels use, leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>
