#pragma once
/// The models that many test files run are compiled once, optimised, in instances/*.cpp; these declarations keep their
/// code out of every other file.
#include <rwkv/check/live_weights.hpp>
#include <rwkv/rwkv.hpp>
#ifdef RWKV_TEST_CUDA
#include <rwkv/cuda.cuh>
#endif

#include "any_version.hpp"

namespace config {

/// A version with time always in chunks.
struct Scanning : AnyVersion {
  using Schedule = rwkv::Scan;
};

}  // namespace config

/// RWKV_TEST_MODEL(extern, version, scalar, backend) declares, with nothing in the place of `extern` it defines.
#define RWKV_TEST_MODEL(EXTERN, ...)                                                                          \
  EXTERN template class rwkv::Context<rwkv::LanguageModel<__VA_ARGS__>>;                                      \
  EXTERN template rwkv::LanguageModel<__VA_ARGS__> rwkv::load_checkpoint<rwkv::LanguageModel<__VA_ARGS__>>(   \
      const rwkv::TensorFile&, const rwkv::LoadOptions&, typename rwkv::LanguageModel<__VA_ARGS__>::backend); \
  EXTERN template void rwkv::live_weights(rwkv::LanguageModel<__VA_ARGS__>&, std::uint64_t);

/// The same for its training, by either policy of what a pass keeps.
#define RWKV_TEST_RECOMPUTING(EXTERN, ...) \
  EXTERN template class rwkv::Gradient<rwkv::LanguageModel<__VA_ARGS__>, rwkv::Recompute>;
#define RWKV_TEST_TRAINING(EXTERN, ...)                                               \
  EXTERN template class rwkv::Gradient<rwkv::LanguageModel<__VA_ARGS__>, rwkv::Keep>; \
  EXTERN template class rwkv::Trainer<rwkv::LanguageModel<__VA_ARGS__>, rwkv::Keep>;  \
  EXTERN template void rwkv::initialize(rwkv::LanguageModel<__VA_ARGS__>&, rwkv::Seed);

/// All of it.
#define RWKV_TEST_VERSION(EXTERN, ...)    \
  RWKV_TEST_MODEL(EXTERN, __VA_ARGS__)    \
  RWKV_TEST_TRAINING(EXTERN, __VA_ARGS__) \
  RWKV_TEST_RECOMPUTING(EXTERN, __VA_ARGS__)

#if defined(RWKV_TEST_ALONE) || defined(__CUDACC__)
// A program of its own has its own code; nvcc has every file of the device suite instantiate what it launches.
#elif defined(RWKV_TEST_CUDA)
RWKV_TEST_VERSION(extern, rwkv::V4, float, rwkv::Cuda)
RWKV_TEST_VERSION(extern, rwkv::V5, float, rwkv::Cuda)
RWKV_TEST_VERSION(extern, rwkv::V6, float, rwkv::Cuda)
RWKV_TEST_VERSION(extern, rwkv::V7, float, rwkv::Cuda)
#elif !defined(RWKV_SIMT)
RWKV_TEST_VERSION(extern, rwkv::V4, float, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V4, double, rwkv::Reference)
RWKV_TEST_VERSION(extern, rwkv::V7, float, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V7, double, rwkv::Reference)
RWKV_TEST_MODEL(extern, config::AnyVersion, rwkv::bf16, rwkv::Cpu)
RWKV_TEST_MODEL(extern, config::Scanning, float, rwkv::Cpu)
#ifdef RWKV_TEST_ALL
RWKV_TEST_VERSION(extern, rwkv::V5, float, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V6, float, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V5, double, rwkv::Reference)
RWKV_TEST_VERSION(extern, rwkv::V6, double, rwkv::Reference)
RWKV_TEST_VERSION(extern, rwkv::V4, double, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V5, double, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V6, double, rwkv::Cpu)
RWKV_TEST_VERSION(extern, rwkv::V7, double, rwkv::Cpu)
RWKV_TEST_MODEL(extern, config::AnyVersion, rwkv::f16, rwkv::Cpu)
RWKV_TEST_MODEL(extern, config::Scanning, double, rwkv::Cpu)
#endif
#endif

/// The scalars of the models above on the CPU.
#ifdef RWKV_TEST_ALL
#define RWKV_TEST_FLOATS float, double
#define RWKV_TEST_HALVES rwkv::bf16, rwkv::f16
#else
#define RWKV_TEST_FLOATS float
#define RWKV_TEST_HALVES rwkv::bf16
#endif
