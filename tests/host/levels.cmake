# One program for several instruction sets: it takes the widest that the processor has, the logits of all are close, and
# on an older processor (in qemu) it runs no instruction that this lacks.
#
#   cmake -DCOMPILER=g++ -DINCLUDES="include;/usr/include/eigen3" -DMODEL=file -DWORK=folder [-DQEMU=qemu-x86_64] -P levels.cmake
cmake_minimum_required(VERSION 3.24)
list(REMOVE_ITEM INCLUDES /usr/include)
list(TRANSFORM INCLUDES PREPEND "-isystem")
file(MAKE_DIRECTORY "${WORK}")
set(folder "${CMAKE_CURRENT_LIST_DIR}/levels")

# Linkers keep the first of several definitions of an inline function. So what is for the oldest processor comes first, and
# Eigen aligns for the newest everywhere.
set(flags -std=c++20 -O1 -Wall -Wextra -Werror ${INCLUDES} -DEIGEN_MAX_ALIGN_BYTES=64 -DRWKV_COMPILED)
function(compile source object)
  execute_process(COMMAND "${COMPILER}" ${flags} ${ARGN} -c "${source}" -o "${WORK}/${object}" RESULT_VARIABLE status
    ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${source} with ${ARGN} does not compile:\n${report}")
  endif()
endfunction()
compile("${folder}/main.cpp" main.o -march=x86-64-v2)
compile("${CMAKE_CURRENT_LIST_DIR}/../../include/rwkv/compiled.cpp" compiled.o -march=x86-64-v2 -O0)
set(objects main.o compiled.o)
foreach(level v2 v3 v4)
  compile("${folder}/level.cpp" ${level}.o -march=x86-64-${level} -DLOAD=load_for_${level})
  list(APPEND objects ${level}.o)
endforeach()
execute_process(COMMAND "${COMPILER}" ${objects} -o levels -static -pthread WORKING_DIRECTORY "${WORK}"
  COMMAND_ERROR_IS_FATAL ANY)

# expect(output status command...): the output of a command that ends so.
function(expect output wanted)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${WORK}" OUTPUT_VARIABLE text ERROR_VARIABLE text
    RESULT_VARIABLE status)
  if(NOT status MATCHES "${wanted}")
    message(FATAL_ERROR "${ARGN} ends with ${status} and says: ${text}")
  endif()
  set(${output} "${text}" PARENT_SCOPE)
endfunction()
expect(here "^0$" ./levels "${MODEL}")
string(REGEX MATCH "taken: v[234]" taken "${here}")
message(STATUS "here, ${taken}")
if(NOT QEMU)
  message(STATUS "older processors: not tried, there is no qemu-x86_64")
  return()
endif()
# A program for AVX2 that is forced on an older processor shows that qemu refuses what that lacks.
expect(forced "Illegal|SIGILL|132" "${QEMU}" -cpu Nehalem ./levels "${MODEL}" v3)
expect(old "^0$" "${QEMU}" -cpu Nehalem ./levels "${MODEL}")
string(REPLACE "${taken}" "taken: v2" wanted "${here}")
if(NOT old STREQUAL wanted)
  message(FATAL_ERROR "on an older processor it says: ${old}\nand not: ${wanted}")
endif()
message(STATUS "on an older processor, taken: v2, with the same logits")
