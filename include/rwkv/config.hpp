#pragma once
/// Version, compiler annotations and the ABI namespace. Every other header starts here.

/// The version of the library. Below 1.0 a minor version may break its users.
#define RWKV_VERSION_MAJOR 0
/// See RWKV_VERSION_MAJOR.
#define RWKV_VERSION_MINOR 1
/// See RWKV_VERSION_MAJOR.
#define RWKV_VERSION_PATCH 0

// With these flags a compiler assumes that there is no NaN, and reorders sums: a broken checkpoint loads, a diverged
// training run overwrites a good model, and a prompt and its single steps no longer have the same bits.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(_M_FP_FAST) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "rwkv: -ffast-math, -Ofast, -ffinite-math-only and -fassociative-math break it; add -fno-fast-math behind them"
#endif

// Sizes and offsets are of the width of a pointer, and models are larger than 2 GB.
#if (defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ < 8) || (defined(_WIN32) && !defined(_WIN64))
#error "rwkv: 64-bit targets only"
#endif

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

/// The inline namespaces keep code apart that is compiled differently. RWKV_ABI encloses everything and names the
/// version and the checks; RWKV_CPU_ABI encloses the CPU backend and names the vector width. So one program may link a
/// translation unit for AVX-512 with one for SSE. Flags that do not change the width (-mfma) do not change the name:
/// translation units of one width must agree on them. Types without a backend are the same in a .cpp and a .cu.
#define RWKV_ABI_NAME_(major, minor, checked) v##major##_##minor##_##checked
/// The name of the inline namespace RWKV_ABI.
#define RWKV_ABI_NAME(major, minor, checked) RWKV_ABI_NAME_(major, minor, checked)
/// See RWKV_CPU_ABI.
#define RWKV_CPU_ABI_NAME_(bytes) simd##bytes
/// See RWKV_CPU_ABI.
#define RWKV_CPU_ABI_NAME(bytes) RWKV_CPU_ABI_NAME_(bytes)
/// The inline namespace around everything.
#define RWKV_ABI RWKV_ABI_NAME(RWKV_VERSION_MAJOR, RWKV_VERSION_MINOR, RWKV_CHECKED)
/// The inline namespace around the CPU backend.
#define RWKV_CPU_ABI RWKV_CPU_ABI_NAME(RWKV_SIMD_BYTES)

/// Marks a function for the host only, RWKV_HD for host and device. Both force inlining: a functor that is
/// called instead of inlined costs an order of magnitude. Without optimisation that would only make the code larger, and
/// the emulator of tests/simt (RWKV_SIMT), which checks kernels, need not be fast: without forced inlining and unrolling
/// it compiles four times as fast.
#if defined(__OPTIMIZE__) && !defined(RWKV_SIMT)
#define RWKV_INLINE [[gnu::always_inline]] inline
#else
#define RWKV_INLINE inline
#endif
/// Marks a function for host and device, see RWKV_INLINE.
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

/// Unrolls the loop that follows. RWKV_UNROLL unrolls loops over the few registers of a block fully; their count is
/// known at compile time. RWKV_UNROLL_HEAD unrolls loops over a head by four under g++: full unrolling takes ten times
/// as long to compile and runs no faster. clang unrolls without a pragma, and would warn about each loop that it
/// cannot.
#if defined(__CUDA_ARCH__)
#define RWKV_UNROLL _Pragma("unroll")
#define RWKV_UNROLL_HEAD _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && !defined(RWKV_SIMT)
#define RWKV_UNROLL _Pragma("GCC unroll 64")
#define RWKV_UNROLL_HEAD _Pragma("GCC unroll 4")
#else
#define RWKV_UNROLL
/// As RWKV_UNROLL, of loops over a head.
#define RWKV_UNROLL_HEAD
#endif

/// Lets clang fuse a multiplication and an addition across functions (FMA contraction), as g++ does by default.
#if defined(__clang__)
#define RWKV_CONTRACT _Pragma("clang fp contract(fast)")
#else
#define RWKV_CONTRACT
#endif

/// Where an error leaves the library. Builds without exceptions may define it to call a handler that does not return.
#ifndef RWKV_THROW
#define RWKV_THROW(exception) throw exception
#endif
