# Lists every file that a header reaches and fails when a path matches a pattern.
#
#   cmake -DCOMPILER=g++ -DINCLUDES=include;/usr/include/eigen3 -DHEADER=rwkv/blocks.hpp -DFORBIDDEN=nlohmann -P reach.cmake
#
# -DFLAGS=-DNAME gives the compiler more to know.
cmake_minimum_required(VERSION 3.24)
list(GET INCLUDES 0 own)
list(TRANSFORM INCLUDES PREPEND "-I")
execute_process(COMMAND "${COMPILER}" -std=c++20 ${FLAGS} -M -x c++ ${INCLUDES} "${own}/${HEADER}"
  RESULT_VARIABLE status OUTPUT_VARIABLE files ERROR_VARIABLE report)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${report}")
endif()
string(REPLACE "${own}/" "" files "${files}")
if(NOT files MATCHES "rwkv/config.hpp")
  message(FATAL_ERROR "the list of files does not even hold rwkv/config.hpp:\n${files}")
endif()
string(REGEX MATCHALL "[^ \n\\]*(${FORBIDDEN})[^ \n]*" found "${files}")
if(found)
  message(FATAL_ERROR "${HEADER} reaches ${found}")
endif()
