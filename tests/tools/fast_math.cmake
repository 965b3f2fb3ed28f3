# Flags with which a compiler forgets NaN, or reorders sums, are refused with a sentence; what leaves both alone compiles.
#
#   cmake -DCOMPILER=g++ -DID=GNU -DINCLUDES=include -P fast_math.cmake
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")
set(source "${CMAKE_CURRENT_LIST_DIR}/../../include/rwkv/config.hpp")

function(compile refused)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only -x c++ ${INCLUDES} ${ARGN} "${source}"
    RESULT_VARIABLE status ERROR_VARIABLE report)
  if(refused AND (status EQUAL 0 OR NOT report MATCHES "rwkv: -ffast-math, -Ofast, -ffinite-math-only"))
    message(FATAL_ERROR "${ARGN} is not refused with the sentence, but with:\n${report}")
  elseif(NOT refused AND NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN} does not compile:\n${report}")
  endif()
endfunction()

compile(TRUE -ffast-math)
compile(TRUE -O2 -ffast-math)
compile(TRUE -Ofast)
compile(TRUE -ffinite-math-only)
compile(TRUE -O3 -fno-fast-math -ffinite-math-only)
if(ID STREQUAL "GNU")  # clang has no macro for these; its checks for NaN ask bits
  compile(TRUE -funsafe-math-optimizations)
  compile(TRUE -fassociative-math -fno-signed-zeros -fno-trapping-math)
endif()
compile(FALSE -O3)
compile(FALSE -Ofast -fno-fast-math)
compile(FALSE -ffast-math -fno-fast-math)
compile(FALSE -fno-math-errno -fno-trapping-math)
compile(FALSE -ffp-contract=fast)
