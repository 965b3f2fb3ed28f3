#pragma once
/// Version, compiler annotations and the ABI namespace. Every other header starts here.

#define RWKV_VERSION_MAJOR 0
#define RWKV_VERSION_MINOR 1
#define RWKV_VERSION_PATCH 0

/// Bytes of the widest vector register the target offers; 0 turns packs off (plain scalars then). It follows the target
/// flags of the translation unit; define it only to narrow the packs. nvcc cannot take vectors, so there it is 0.
#ifndef RWKV_SIMD_BYTES
#if !defined(__GNUC__) || defined(__CUDACC__)
#define RWKV_SIMD_BYTES 0
#elif defined(__AVX512F__)
#define RWKV_SIMD_BYTES 64
#elif defined(__AVX__)
#define RWKV_SIMD_BYTES 32
#else
#define RWKV_SIMD_BYTES 16
#endif
#endif

/// 1 checks at every verb that its views agree in shape (the default unless NDEBUG), 0 trusts the caller.
#ifndef RWKV_CHECKED
#ifdef NDEBUG
#define RWKV_CHECKED 0
#else
#define RWKV_CHECKED 1
#endif
#endif

/// The inline namespaces keep apart what is compiled differently: RWKV_ABI, around everything, names version and
/// checks; RWKV_CPU_ABI, around the CPU backend, the vector width. So a translation unit for AVX-512 and one for SSE
/// may meet in one program. Flags that leave the width as it is (-mfma) are not told apart: use the same for all that
/// share a width. Types that know no backend are the same in a .cpp and a .cu.
#define RWKV_ABI_NAME_(major, minor, checked) v##major##_##minor##_##checked
#define RWKV_ABI_NAME(major, minor, checked) RWKV_ABI_NAME_(major, minor, checked)
#define RWKV_CPU_ABI_NAME_(bytes) simd##bytes
#define RWKV_CPU_ABI_NAME(bytes) RWKV_CPU_ABI_NAME_(bytes)
#define RWKV_ABI RWKV_ABI_NAME(RWKV_VERSION_MAJOR, RWKV_VERSION_MINOR, RWKV_CHECKED)
#define RWKV_CPU_ABI RWKV_CPU_ABI_NAME(RWKV_SIMD_BYTES)

/// RWKV_HD marks a function as usable on host and device, RWKV_INLINE as the host's alone. Both ask every compiler to
/// inline it: a functor that is called instead of inlined costs an order of magnitude.
#if defined(__GNUC__)
#define RWKV_INLINE [[gnu::always_inline]] inline
#else
#define RWKV_INLINE inline
#endif
#if defined(__CUDACC__)
#define RWKV_HD __host__ __device__ __forceinline__
#else
#define RWKV_HD RWKV_INLINE
#endif

/// RWKV_COMPILED, which the CMake target rwkv::compiled defines, leaves the bodies of io, text, system and the data of
/// train to one translation unit, rwkv/compiled.cpp; otherwise they are inline functions like all others. Before each
/// such body stands RWKV_BODY. That unit and its callers must agree on RWKV_CHECKED, and so on NDEBUG, or the link
/// fails: the two settings have different names in RWKV_ABI. Their vector widths may differ.
#if defined(RWKV_COMPILED)
#define RWKV_BODY
#else
#define RWKV_BODY inline
#endif

/// Unrolls the loop that follows; for loops over a compile-time count. clang unrolls those by itself, and would warn
/// about each that it cannot.
#if defined(__CUDA_ARCH__)
#define RWKV_UNROLL _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define RWKV_UNROLL _Pragma("GCC unroll 64")
#else
#define RWKV_UNROLL
#endif

/// Lets a compiler fuse a multiplication and an addition of different functions; g++ does so unasked.
#if defined(__clang__)
#define RWKV_CONTRACT _Pragma("clang fp contract(fast)")
#else
#define RWKV_CONTRACT
#endif

/// Where an error leaves the library. Builds without exceptions may define it to call a handler that does not return.
#ifndef RWKV_THROW
#define RWKV_THROW(exception) throw exception
#endif
