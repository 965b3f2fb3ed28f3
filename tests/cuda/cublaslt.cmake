# Compiles and runs a program that would load cuBLASLt at run time, and checks that it is linked to no such library.
#   cmake -DNVCC=nvcc -DINCLUDES="include;/usr/include/eigen3" -DWORK=folder -P cublaslt.cmake
cmake_minimum_required(VERSION 3.24)
list(REMOVE_ITEM INCLUDES /usr/include)  # a system folder by itself; named again it is searched too early
list(TRANSFORM INCLUDES PREPEND "-isystem=")
file(MAKE_DIRECTORY "${WORK}")
execute_process(COMMAND "${NVCC}" -std=c++20 -arch=sm_90 -DEIGEN_NO_CUDA -Werror all-warnings
                        -Xcompiler -Wall,-Wextra,-Werror,-Wno-unknown-pragmas "-I${CMAKE_CURRENT_LIST_DIR}/../../include"
                        ${INCLUDES} "${CMAKE_CURRENT_LIST_DIR}/cublaslt.cu" -o "${WORK}/cublaslt"
                RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(failed)
  if(errors MATCHES "cublasLt.h: No such file")
    message(STATUS "skipped: the toolkit has no cuBLASLt")
    return()
  endif()
  message(FATAL_ERROR "cublaslt.cu does not compile:\n${errors}")
endif()
execute_process(COMMAND readelf -d "${WORK}/cublaslt" OUTPUT_VARIABLE needed COMMAND_ERROR_IS_FATAL ANY)
if(needed MATCHES "cublas")
  message(FATAL_ERROR "the program is linked to cuBLAS:\n${needed}")
endif()
execute_process(COMMAND "${WORK}/cublaslt" OUTPUT_VARIABLE text RESULT_VARIABLE failed)
if(failed OR NOT (text STREQUAL "" OR text MATCHES "^rwkv: "))
  message(FATAL_ERROR "it ended with ${failed} and said: ${text}")
endif()
message(STATUS "${text}")
