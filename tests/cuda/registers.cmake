# Compiles the kernels of kernels/*.cu for three architectures and holds what ptxas says against registers.txt: no
# warning, no spill, no local array, no kernel above its registers, none missing from the table, none in the table alone.
#
#   cmake -DNVCC=nvcc -DINCLUDES="include;/usr/include/eigen3" -DWORK=build/registers -P registers.cmake
#
# With -DUPDATE=ON it writes the table instead. The environment's RWKV_REGISTER_ARCHITECTURES, such as 90, names some of
# the three.
cmake_minimum_required(VERSION 3.24)
set(here "${CMAKE_CURRENT_LIST_DIR}")
list(REMOVE_ITEM INCLUDES /usr/include)  # a system folder by itself; named again it is searched too early
list(TRANSFORM INCLUDES PREPEND "-isystem=")
file(MAKE_DIRECTORY "${WORK}")
set(architectures 80 90 120)
if(DEFINED ENV{RWKV_REGISTER_ARCHITECTURES} AND NOT UPDATE)
  string(REPLACE " " ";" architectures "$ENV{RWKV_REGISTER_ARCHITECTURES}")
endif()
set(targets "")
foreach(architecture IN LISTS architectures)
  list(APPEND targets "-gencode=arch=compute_${architecture},code=sm_${architecture}")
endforeach()

# --- What the compiler says, one line a kernel: registers, architecture, name. ---------------------------------------
file(GLOB sources "${here}/kernels/*.cu")
set(found "")
foreach(source IN LISTS sources)
  cmake_path(GET source STEM stem)
  execute_process(
    COMMAND "${NVCC}" -std=c++20 -O3 --threads 3 ${targets} -DEIGEN_NO_CUDA -Werror all-warnings
            -Xptxas -v,-warn-spills,-warn-lmem-usage -Xcompiler -Wall,-Wextra,-Werror,-Wno-unknown-pragmas
            "-I${here}/../../include" ${INCLUDES} -c "${source}" -o "${WORK}/${stem}.o"
    RESULT_VARIABLE status OUTPUT_VARIABLE report ERROR_VARIABLE report)
  file(WRITE "${WORK}/${stem}.txt" "${report}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${stem}.cu does not compile cleanly:\n${report}")
  endif()
  execute_process(COMMAND c++filt INPUT_FILE "${WORK}/${stem}.txt" OUTPUT_FILE "${WORK}/${stem}.names.txt"
                  COMMAND_ERROR_IS_FATAL ANY)
  file(STRINGS "${WORK}/${stem}.names.txt" lines)
  foreach(line IN LISTS lines)
    if(line MATCHES "Compiling entry function '(.*)' for 'sm_([0-9]+)'")
      set(architecture "${CMAKE_MATCH_2}")
      # The name without namespaces, result and parameters; CUB's names all architectures of the compilation.
      string(REGEX REPLACE "rwkv::v[0-9_]+::|CUB_[0-9]+_SM_[0-9_]+::|sm_[0-9_]+::|gpu::|^void " "" name "${CMAKE_MATCH_1}")
      string(REGEX REPLACE ">\\([^<>]*(<.*>)?[^<>]*\\)$" ">" name "${name}")
    elseif(line MATCHES "Used ([0-9]+) registers")
      list(APPEND found "${CMAKE_MATCH_1} sm_${architecture} ${name}")
    endif()
  endforeach()
endforeach()
list(REMOVE_DUPLICATES found)  # a kernel that several files use
list(LENGTH found count)
if(count EQUAL 0)
  message(FATAL_ERROR "no kernel was compiled")
endif()

set(table "${here}/registers.txt")
if(UPDATE)
  set(rows "${found}")
  list(TRANSFORM rows REPLACE "^([0-9]+) (sm_[0-9]+) (.*)" "\\3 \\2 \\1")
  list(SORT rows COMPARE NATURAL)
  list(TRANSFORM rows REPLACE "^(.*) (sm_[0-9]+) ([0-9]+)$" "\\3 \\2 \\1")
  list(JOIN rows "\n" text)
  file(WRITE "${table}" "# The registers a thread may take, by architecture and kernel.\n${text}\n")
  message(STATUS "${count} kernels written to ${table}")
  return()
endif()

# --- The same against the table. -------------------------------------------------------------------------------------
list(JOIN architectures "|" pattern)
file(STRINGS "${table}" rows REGEX "^[0-9]+ sm_(${pattern}) ")
set(failed "")
set(known "")
foreach(row IN LISTS rows)
  string(REGEX MATCH "^([0-9]+) (.*)" _ "${row}")
  string(MD5 key "${CMAKE_MATCH_2}")
  set(budget_${key} "${CMAKE_MATCH_1}")
  list(APPEND known "${key}")
endforeach()
foreach(kernel IN LISTS found)
  string(REGEX MATCH "^([0-9]+) (.*)" _ "${kernel}")
  set(registers "${CMAKE_MATCH_1}")
  set(name "${CMAKE_MATCH_2}")
  string(MD5 key "${name}")
  list(REMOVE_ITEM known "${key}")
  if(NOT DEFINED budget_${key})
    string(APPEND failed "not in the table: ${name}\n")
  elseif(registers GREATER budget_${key})
    string(APPEND failed "${registers} registers instead of ${budget_${key}}: ${name}\n")
  endif()
endforeach()
list(LENGTH known missing)
if(missing GREATER 0)
  string(APPEND failed "${missing} kernels of the table were not compiled\n")
endif()
if(failed)
  message(FATAL_ERROR "registers.txt:\n${failed}")
endif()
message(STATUS "${count} kernels within their registers, for ${architectures}")
