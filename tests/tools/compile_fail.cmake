# Compiles a program that must not compile, and holds the compiler to the sentences that the program names:
#
#   // error: the sentence                on a line with "error:", from every compiler
#   // first error: the sentence          on the first such line
#   // error (GNU): its words             from one compiler only
#   // errors (GNU): 2                    there are no others
#
#   cmake -DCOMPILER=g++ -DID=GNU -DINCLUDES=include;/usr/include/eigen3 -DPARSED=folder -DSOURCE=case.cpp
#         -P compile_fail.cmake
#
# Without a SOURCE it parses rwkv/blocks.hpp and any_version.hpp once, into the folder PARSED, for all cases.
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")
set(parsed "${PARSED}/rwkv/blocks.hpp.gch")
if(NOT SOURCE)
  file(MAKE_DIRECTORY "${PARSED}/rwkv")
  file(WRITE "${PARSED}/blocks.hpp" "#include <rwkv/blocks.hpp>\n#include \"${CMAKE_CURRENT_LIST_DIR}/../any_version.hpp\"\n")
  execute_process(COMMAND "${COMPILER}" -std=c++20 ${INCLUDES} -x c++-header "${PARSED}/blocks.hpp" -o "${parsed}"
    RESULT_VARIABLE status ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${report}")
  endif()
  return()
endif()
if(ID MATCHES "Clang")
  list(PREPEND INCLUDES -include-pch "${parsed}")
else()
  list(PREPEND INCLUDES "-I${PARSED}")  # where rwkv/blocks.hpp is looked for first
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
string(REGEX MATCHALL "// (first )?error( \\(${ID}\\))?: [^\n]+" sentences "${text}")
if(NOT sentences)
  message(FATAL_ERROR "${SOURCE} names no sentence for ${ID}")
endif()
execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only ${INCLUDES} "${SOURCE}"
  RESULT_VARIABLE status OUTPUT_VARIABLE report ERROR_VARIABLE report)
if(status EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles")
endif()
set(printed "${report}")
plain(report)
string(REGEX MATCHALL "error: [^\n]+" errors "${report}")
list(LENGTH errors number)
if(text MATCHES "// errors \\(${ID}\\): ([0-9]+)" AND NOT number EQUAL CMAKE_MATCH_1)
  message(FATAL_ERROR "${SOURCE} should lead to ${CMAKE_MATCH_1} errors, but the compiler printed\n${printed}")
endif()
list(GET errors 0 first)
foreach(sentence IN LISTS sentences)
  set(where "${errors}")
  if(sentence MATCHES "^// first")
    set(where "${first}")
  endif()
  string(REGEX REPLACE "^// [^:]*: " "" sentence "${sentence}")
  string(FIND "${where}" "${sentence}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "no error of ${SOURCE}, or not the first, says\n  ${sentence}\nbut the compiler printed\n${printed}")
  endif()
endforeach()
