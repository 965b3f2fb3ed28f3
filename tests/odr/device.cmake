# Links a translation unit of nvcc with those of a host compiler and runs the program, which needs no GPU.
#
#   cmake -DNVCC=nvcc -DCOMPILER=g++ -DINCLUDES=include;/usr/include/eigen3 -DWORK=build/cuda -P device.cmake
cmake_minimum_required(VERSION 3.24)
set(here "${CMAKE_CURRENT_LIST_DIR}")
list(TRANSFORM INCLUDES PREPEND "-I")
file(MAKE_DIRECTORY "${WORK}")

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n${text}")
  endif()
endfunction()

foreach(unit main first second)
  run("${COMPILER}" -std=c++20 -O0 ${INCLUDES} -c "${here}/${unit}.cpp" -o "${WORK}/${unit}.o")
endforeach()
run("${NVCC}" -std=c++20 -O0 -DEIGEN_NO_CUDA ${INCLUDES} -c "${here}/device.cu" -o "${WORK}/device.o")
run("${NVCC}" "${WORK}/main.o" "${WORK}/first.o" "${WORK}/second.o" "${WORK}/device.o" -o "${WORK}/odr")
run("${WORK}/odr")
