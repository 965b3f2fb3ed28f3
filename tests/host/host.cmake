# Builds a program of this folder as a host does, with flags of its own, and runs it.
#
#   cmake -DPROGRAM=no_nans -DCOMPILER=clang++ -DID=Clang -DINCLUDES="include;/usr/include/eigen3" -DWORK=folder -P host.cmake
cmake_minimum_required(VERSION 3.24)
list(REMOVE_ITEM INCLUDES /usr/include)
list(TRANSFORM INCLUDES PREPEND "-isystem")
file(MAKE_DIRECTORY "${WORK}")

# build(name sources and flags...)
function(build name)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -Wall -Wextra -Werror ${INCLUDES} ${ARGN} -o "${WORK}/${name}" -pthread
    RESULT_VARIABLE status ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${PROGRAM}.cpp with ${ARGN} does not compile:\n${report}")
  endif()
endfunction()

# expect(name argument status sentence)
function(expect name argument wanted sentence)
  execute_process(COMMAND "${WORK}/${name}" ${argument} WORKING_DIRECTORY "${WORK}" RESULT_VARIABLE status
    OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status STREQUAL wanted OR NOT text MATCHES "${sentence}")
    message(FATAL_ERROR "${name} ${argument} ends with ${status} instead of ${wanted} and says: ${text}")
  endif()
endfunction()

set(source "${CMAKE_CURRENT_LIST_DIR}/${PROGRAM}.cpp")
if(PROGRAM STREQUAL "no_exceptions")
  set(flags -O0 -fno-exceptions -fno-rtti)
  set(handler "-DRWKV_THROW(exception)=host_error((exception).what())" -include "${CMAKE_CURRENT_LIST_DIR}/handler.hpp")
  build(no_exceptions "${source}" ${flags} ${handler})
  build(no_exceptions_compiled "${source}" "${CMAKE_CURRENT_LIST_DIR}/../../include/rwkv/compiled.cpp" ${flags} ${handler}
    -DRWKV_COMPILED)
  foreach(name no_exceptions no_exceptions_compiled)
    expect(${name} works 0 "^$")
    expect(${name} missing 3 "no such model.safetensors: cannot open the file")
    expect(${name} damaged 3 "^damaged: ")
    expect(${name} weights 3 "emb.weight: element 3 is not a finite number")
    expect(${name} token 3 "token 16 at position 0 is outside the vocabulary of 16")
    expect(${name} sampler 3 "logit 1 is not a number")
    expect(${name} vocabulary 3 "small, line 1: the literal has no closing quote")
    expect(${name} context 3 "a context needs a batch above zero")
  endforeach()
elseif(ID STREQUAL "GNU")  # it announces such flags, and they are refused, but not such a pragma
  file(WRITE "${WORK}/pragma.hpp" "#pragma GCC optimize(\"finite-math-only\")\n")
  build(no_nans_pragma "${source}" -O2 -include "${WORK}/pragma.hpp")
  expect(no_nans_pragma "" 0 "^0 failures")
else()
  foreach(flag nans infinities)
    build(no_${flag} "${source}" -O2 -fno-honor-${flag})
    expect(no_${flag} "" 0 "^0 failures")
  endforeach()
endif()
