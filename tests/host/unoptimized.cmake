# Without optimisation the CPU backend says so, in a message that no -Werror turns into an error; a macro silences it.
#   cmake -DCOMPILER=g++ -DINCLUDES="include;/usr/include/eigen3" -P unoptimized.cmake
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")
function(compile said)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -Wall -Werror ${INCLUDES} -fsyntax-only ${ARGN}
    -include rwkv/backend/cpu.hpp -x c++ /dev/null RESULT_VARIABLE status ERROR_VARIABLE text)
  string(FIND "${text}" "rwkv: without optimisation models run many times slower" at)
  if(NOT status EQUAL 0 OR (said AND at EQUAL -1) OR (NOT said AND NOT at EQUAL -1))
    message(FATAL_ERROR "with ${ARGN} the compiler says ${text}")
  endif()
endfunction()
compile(TRUE -O0)
compile(FALSE -O0 -DRWKV_NO_OPTIMIZE_WARNING)
compile(FALSE -O1)
