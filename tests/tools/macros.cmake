# Fails when a header defines a macro that does not start with RWKV_, beyond those of what it includes.
#
#   cmake -DCOMPILER=g++ -DINCLUDES=include;/usr/include/eigen3 -DHEADER=all.hpp -DOTHERS=others.hpp -P macros.cmake
cmake_minimum_required(VERSION 3.24)
list(TRANSFORM INCLUDES PREPEND "-I")

# The names of the macros after including the files.
function(macros_after result)
  list(TRANSFORM ARGN PREPEND "-include;" OUTPUT_VARIABLE files)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -dM -E -x c++ ${INCLUDES} ${files} /dev/null
    RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${report}")
  endif()
  string(REGEX MATCHALL "#define [A-Za-z0-9_]+" names "${text}")
  list(TRANSFORM names REPLACE "#define " "")
  set(${result} "${names}" PARENT_SCOPE)
endfunction()

macros_after(before "${OTHERS}")
macros_after(after "${OTHERS}" "${HEADER}")
list(REMOVE_ITEM after ${before})
if(NOT after MATCHES "RWKV_HD")
  message(FATAL_ERROR "not even RWKV_HD is new: ${after}")
endif()
list(FILTER after EXCLUDE REGEX "^RWKV_")
if(after)
  message(FATAL_ERROR "macros without the prefix RWKV_: ${after}")
endif()
