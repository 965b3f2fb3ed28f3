# Compiles a program that must not compile, and holds the compiler to the sentences that the program names:
#
#   // error: the sentence                on a line with "error:", from every compiler
#   // error (GNU): its words             from one compiler only
#
#   cmake -DCOMPILER=g++ -DID=GNU -DINCLUDES=include;/usr/include/eigen3 -DPREAMBLE=preamble.hpp -DSOURCE=case.cpp
#         -P compile_fail.cmake
#
# Without SOURCE it precompiles the preamble, a header of what the programs include.
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")
if(NOT SOURCE)
  execute_process(COMMAND "${COMPILER}" -std=c++20 ${INCLUDES} -x c++-header "${PREAMBLE}" -o "${PREAMBLE}.gch"
    COMMAND_ERROR_IS_FATAL ANY)
  return()
endif()

# Characters that mean something in CMake's lists stand aside, in the text and in the report alike.
function(plain variable)
  string(REPLACE ";" "<semicolon>" value "${${variable}}")
  string(REPLACE "[" "<open>" value "${value}")
  string(REPLACE "]" "<close>" value "${value}")
  string(REPLACE "\\\"" "\"" value "${value}")  # clang quotes the sentence as a literal
  set(${variable} "${value}" PARENT_SCOPE)
endfunction()

file(READ "${SOURCE}" text)
plain(text)
string(REGEX MATCHALL "// error( \\(${ID}\\))?: [^\n]+" sentences "${text}")
if(NOT sentences)
  message(FATAL_ERROR "${SOURCE} names no sentence for ${ID}")
endif()
execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only ${INCLUDES} -include "${PREAMBLE}" "${SOURCE}"
  RESULT_VARIABLE status OUTPUT_VARIABLE report ERROR_VARIABLE report)
if(status EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles")
endif()
set(printed "${report}")
plain(report)
string(REGEX MATCHALL "error: [^\n]+" errors "${report}")
foreach(sentence IN LISTS sentences)
  string(REGEX REPLACE "^// error[^:]*: " "" sentence "${sentence}")
  string(FIND "${errors}" "${sentence}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "no error of ${SOURCE} says\n  ${sentence}\nbut the compiler printed\n${printed}")
  endif()
endforeach()
