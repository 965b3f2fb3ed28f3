# Flags with which a compiler forgets NaN, or reorders sums, are refused with a sentence, and so are targets of 32 bits;
# what leaves both alone compiles.
#
#   cmake -DCOMPILER=g++ -DID=GNU -DINCLUDES=include [-DCLANG=clang++] -P refused.cmake
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")
set(source "${CMAKE_CURRENT_LIST_DIR}/../../include/rwkv/config.hpp")

set(sentence "rwkv: -ffast-math, -Ofast, -ffinite-math-only")
function(compile refused)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only -x c++ ${INCLUDES} ${ARGN} "${source}"
    RESULT_VARIABLE status ERROR_VARIABLE report)
  if(refused AND (status EQUAL 0 OR NOT report MATCHES "${sentence}"))
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

set(sentence "rwkv: 64-bit targets only")
if(CLANG)  # knows every target, and the header includes nothing
  set(COMPILER "${CLANG}")
  foreach(target i386-linux-gnu armv7-linux-gnueabihf wasm32-unknown-unknown riscv32-linux-gnu i686-pc-windows-msvc)
    compile(TRUE --target=${target})
  endforeach()
  foreach(target x86_64-linux-gnu aarch64-linux-gnu arm64-apple-macos riscv64-linux-gnu x86_64-pc-windows-msvc)
    compile(FALSE --target=${target})
  endforeach()
elseif(ID STREQUAL "GNU")
  compile(TRUE -m32)
endif()
