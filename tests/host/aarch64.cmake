# Part of the suite on 64-bit ARM: cross-compiled without optimisation, and run by qemu.
#
#   cmake -DCROSS=aarch64-linux-gnu-g++ -DQEMU=qemu-aarch64 -DINCLUDES="include;/usr/include/eigen3" -DGOLDEN=folder
#     -DWORK=folder -P aarch64.cmake
cmake_minimum_required(VERSION 3.24)
cmake_path(SET tests NORMALIZE "${CMAKE_CURRENT_LIST_DIR}/..")
file(MAKE_DIRECTORY "${WORK}/include")
# Headers of this machine's libraries, without those of its C library.
foreach(header Eigen unsupported doctest nlohmann)
  foreach(folder IN LISTS INCLUDES ITEMS /usr/include)
    if(EXISTS "${folder}/${header}")
      file(CREATE_LINK "${folder}/${header}" "${WORK}/include/${header}" SYMBOLIC)
      break()
    endif()
  endforeach()
endforeach()
set(flags -std=c++20 -O0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -DRWKV_NO_OPTIMIZE_WARNING -DRWKV_COMPILED
  -DRWKV_TEST_ALONE "-DRWKV_GOLDEN_DIR=\"${GOLDEN}\"" "-I${tests}/../include" -isystem "${WORK}/include")
set(objects "")
foreach(source IN ITEMS main.cpp golden.cpp ../include/rwkv/compiled.cpp core/quantise_test.cpp backend/pack_test.cpp
    backend/quantised_test.cpp text/tokenizer_test.cpp
    host/aarch64/model_test.cpp)
  string(MAKE_C_IDENTIFIER "${source}" object)
  execute_process(COMMAND "${CROSS}" ${flags} -c "${tests}/${source}" -o "${WORK}/${object}.o" RESULT_VARIABLE status
    ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${source} does not compile for aarch64:\n${report}")
  endif()
  list(APPEND objects "${object}.o")
endforeach()
execute_process(COMMAND "${CROSS}" ${objects} -o aarch64_tests -static -pthread WORKING_DIRECTORY "${WORK}"
  ERROR_VARIABLE report RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the tests for aarch64 do not link:\n${report}")
endif()
# What sweeps a vocabulary or all formats of quantised weights takes qemu minutes.
set(left_out "*::Q4_0>,*::Q4_1>,*::Q5_0>,*::Q5_1>,*::Q4_K>,*::Q5_K>,*::Q6_K>,every World token*,any bytes are*")
string(APPEND left_out ",a file cut anywhere is refused or*")
execute_process(COMMAND "${QEMU}" ./aarch64_tests "--test-case-exclude=${left_out}"
  WORKING_DIRECTORY "${WORK}" OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE status)
if(NOT status EQUAL 0 OR NOT text MATCHES "test cases: +[1-9]")
  message(FATAL_ERROR "on aarch64 the tests end with ${status}:\n${text}")
endif()
string(REGEX MATCH "test cases[^\n]*" counts "${text}")
message(STATUS "on aarch64: ${counts}")
