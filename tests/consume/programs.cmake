# The same two programs for every way of getting the library, with a user's own warnings as errors.
foreach(program whole blocks)
  add_executable(${program} "${CMAKE_CURRENT_LIST_DIR}/${program}.cpp")
  target_link_libraries(${program} PRIVATE rwkv::rwkv)
  target_compile_options(${program} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
  install(TARGETS ${program})
endforeach()
