# Compiles cells.cu and holds what ptxas says against registers.txt: no warning, no spill, no local array, no kernel above its
# registers, none missing from the table, none in the table alone.
#
#   cmake -DNVCC=nvcc -DWORK=build/simt -P registers.cmake
#
# NVCC is the compiler, WORK a folder for the object file.
cmake_minimum_required(VERSION 3.24)
set(here ${CMAKE_CURRENT_LIST_DIR})
file(STRINGS ${here}/registers.txt lines REGEX "^[^#]")
file(MAKE_DIRECTORY ${WORK})

set(architectures "")
foreach(line IN LISTS lines)
  if(line MATCHES " sm_([0-9]+) ")
    list(APPEND architectures -gencode arch=compute_${CMAKE_MATCH_1},code=sm_${CMAKE_MATCH_1})
  endif()
endforeach()
string(REPLACE "-gencode;" "-gencode=" architectures "${architectures}")
list(REMOVE_DUPLICATES architectures)

# RWKV_UNROLL is a pragma of nvcc's, which its host compiler does not know.
execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 ${architectures} -Werror all-warnings -Xptxas -v,-warn-spills,-warn-lmem-usage
          -Xcompiler -Wall,-Wextra,-Werror,-Wno-unknown-pragmas -I ${here}/../../include -c ${here}/cells.cu -o ${WORK}/cells.o
  RESULT_VARIABLE status OUTPUT_VARIABLE report ERROR_VARIABLE report)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "cells.cu does not compile cleanly:\n${report}")
endif()

string(REGEX MATCHALL "Compiling entry function '[^']+' for '[^']+'" compiled "${report}")
list(LENGTH compiled kernels)
list(LENGTH lines rows)
if(NOT kernels EQUAL rows)
  message(FATAL_ERROR "${kernels} kernels compiled, ${rows} in registers.txt:\n${report}")
endif()

set(failed "")
foreach(line IN LISTS lines)
  string(REPLACE " " ";" row "${line}")
  list(GET row 0 cell)
  list(GET row 1 head)
  list(GET row 2 scalar)
  list(GET row 3 architecture)
  list(GET row 4 budget)
  # Mangled: the length of the name and the name, the head as a long, the first letter of the scalar.
  string(LENGTH ${cell} length)
  string(SUBSTRING ${scalar} 0 1 letter)
  set(entry "Compiling entry function '[^']*recur_kernelI[^']*${length}${cell}E?Ll${head}E${letter}L[^']*' for '${architecture}'")
  if(NOT report MATCHES "${entry}[^']*Function properties[^']*Used ([0-9]+) registers")
    string(APPEND failed "${line}: not compiled\n")
  elseif(CMAKE_MATCH_1 GREATER budget)
    string(APPEND failed "${line}: takes ${CMAKE_MATCH_1} registers\n")
  else()
    message(STATUS "${cell} ${head} ${scalar} ${architecture}: ${CMAKE_MATCH_1} of ${budget} registers")
  endif()
endforeach()
if(failed)
  message(FATAL_ERROR "registers.txt:\n${failed}${report}")
endif()
