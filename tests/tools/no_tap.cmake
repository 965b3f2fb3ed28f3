# A context without a tap has no code for taps: no object of OBJECTS calls forward_tapped but that of tap_test.cpp, which
# must.
#
#   cmake "-DOBJECTS=a.o;b.o" -P no_tap.cmake
cmake_minimum_required(VERSION 3.24)
find_program(nm nm REQUIRED)
list(FILTER OBJECTS INCLUDE REGEX "\\.o(bj)?$")  # not the precompiled header
set(tapped "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND "${nm}" "${object}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  if(symbols MATCHES "forward_tapped")
    cmake_path(GET object FILENAME name)
    list(APPEND tapped "${name}")
  endif()
endforeach()
if(NOT tapped MATCHES "^tap_test[^;]*$")
  message(FATAL_ERROR "code for taps is in: ${tapped}")
endif()
list(LENGTH OBJECTS count)
message(STATUS "one of ${count} objects has code for taps")
