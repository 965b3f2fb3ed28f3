# The building blocks in the hands of nvcc: a model that runs on the CPU, instantiated in a .cu file.
#   cmake -DNVCC=nvcc -DINCLUDES="include;/usr/include/eigen3" -DWORK=folder -P umbrella.cmake
cmake_minimum_required(VERSION 3.24)
list(REMOVE_ITEM INCLUDES /usr/include)  # a system folder by itself; named again it is searched too early
list(TRANSFORM INCLUDES PREPEND "-isystem=")
file(MAKE_DIRECTORY "${WORK}")
execute_process(COMMAND "${NVCC}" -std=c++20 -arch=sm_90 -DEIGEN_NO_CUDA -Werror all-warnings
                        -Xcompiler -Wall,-Wextra,-Werror "-I${CMAKE_CURRENT_LIST_DIR}/../../include" ${INCLUDES}
                        -c "${CMAKE_CURRENT_LIST_DIR}/umbrella.cu" -o "${WORK}/umbrella.o"
                RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(failed)
  message(FATAL_ERROR "umbrella.cu does not compile:\n${errors}")
endif()
