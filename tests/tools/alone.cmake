# Compiles every header of a list alone, twice included.
#
#   cmake -DCOMPILER=g++ -DINCLUDES=include;/usr/include/eigen3 -DHEADERS=rwkv/fwd.hpp;rwkv/config.hpp
#         -DFLAGS=-march=native -P alone.cmake
cmake_minimum_required(VERSION 3.24)
list(GET INCLUDES 0 own)
list(REMOVE_AT INCLUDES 0)
list(REMOVE_ITEM INCLUDES "${own}" /usr/include)  # a system folder by itself; named again it is searched too early
list(TRANSFORM INCLUDES PREPEND "-isystem")
if(NOT HEADERS)
  message(FATAL_ERROR "there is no header to compile")
endif()
foreach(header IN LISTS HEADERS)
  execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
                          ${FLAGS} "-I${own}" ${INCLUDES}
                          -x c++ -include "${header}" -include "${header}" /dev/null
                  RESULT_VARIABLE status ERROR_VARIABLE report)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${header} does not compile alone:\n${report}")
  endif()
endforeach()
list(LENGTH HEADERS count)
message(STATUS "${count} headers compile alone")
