# Holds the headers to the order of the layers: a header includes its own folder or a lower layer, never upwards and
# never a sibling.
#
#   config < core < {system, cell} < backend < op < block < model < {io, text, check} < train < ranks < umbrellas
#
#   cmake -DINCLUDE=include -P layers.cmake
cmake_minimum_required(VERSION 3.24)

set(layer_ 0)  # config.hpp
set(layer_core 1)
set(layer_system 2)
set(layer_cell 2)
set(layer_backend 3)
set(layer_op 4)
set(layer_block 5)
set(layer_model 6)
foreach(sibling io text check)
  set(layer_${sibling} 7)
endforeach()
set(layer_train 8)  # reads checkpoints and text
set(layer_ranks 9)  # reads checkpoints, and uses the communicators of training
set(umbrella 10)

# The folder that decides about a header.
function(folder_of header result)
  cmake_path(GET header PARENT_PATH folder)
  string(REGEX REPLACE "/.*" "" folder "${folder}")
  if(header STREQUAL "fwd.hpp")
    set(folder core)
  endif()
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE headers RELATIVE "${INCLUDE}/rwkv" "${INCLUDE}/rwkv/*.hpp" "${INCLUDE}/rwkv/*.ipp" "${INCLUDE}/rwkv/*.cuh")
set(faults "")
foreach(header IN LISTS headers)
  folder_of("${header}" folder)
  if(folder STREQUAL "" AND NOT header STREQUAL "config.hpp")
    set(layer ${umbrella})
  elseif(DEFINED layer_${folder})
    set(layer ${layer_${folder}})
  else()
    string(APPEND faults "${header}: the folder ${folder} has no layer\n")
    continue()
  endif()
  file(READ "${INCLUDE}/rwkv/${header}" text)

  string(REGEX MATCHALL "#include +[<\"][^>\"]+[>\"]" lines "${text}")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "#include +[<\"]([^>\"]+)[>\"]" "\\1" included "${line}")
    if(included MATCHES "cuda|cublas|^cub/" AND NOT header MATCHES "^backend/cuda[./]|^cuda(_cublaslt)?.cuh$")
      string(APPEND faults "${header} includes ${included}: only the CUDA backend may\n")
    elseif(included MATCHES "Eigen/" AND NOT header MATCHES "^backend/cpu")
      string(APPEND faults "${header} includes ${included}: only the CPU backend may\n")
    elseif(included MATCHES "^nlohmann/" AND NOT folder STREQUAL "io")
      string(APPEND faults "${header} includes ${included}: only io may\n")
    endif()
    if(NOT included MATCHES "^rwkv/(.*)$")
      continue()
    endif()
    set(target "${CMAKE_MATCH_1}")
    folder_of("${target}" to)
    if(NOT EXISTS "${INCLUDE}/rwkv/${target}")
      string(APPEND faults "${header} includes ${included}, which does not exist\n")
    elseif(layer EQUAL umbrella)
      continue()
    elseif(to STREQUAL "" AND NOT target STREQUAL "config.hpp")
      string(APPEND faults "${header} includes the umbrella ${target}\n")
    elseif(NOT to STREQUAL folder AND NOT layer_${to} LESS layer)
      string(APPEND faults "${header} includes ${target}, which is no lower layer\n")
    elseif(layer GREATER layer_backend AND to STREQUAL "backend" AND target MATCHES "^backend/(cpu|cuda|reference)")
      string(APPEND faults "${header} includes ${target}: above the waist no backend is particular\n")
    endif()
  endforeach()

  # A backend knows verbs, cells and operands, but no blocks, models or versions. The fused step is an exception, and goes
  # when blocks describe it in operands.
  string(REGEX REPLACE "//[^\n]*" "" code "${text}")
  if(header MATCHES "^backend/" AND NOT header STREQUAL "backend/cuda/step/decode.cuh" AND
     code MATCHES "[^A-Za-z0-9_](Layer|TimeMix|ChannelMix|CellMix|Embedding|Head|LanguageModel|Context|V[4-7])[^A-Za-z0-9_]")
    string(APPEND faults "${header} names ${CMAKE_MATCH_1}: a backend knows no blocks, models and versions\n")
  endif()

  # What must not be in a header of this library: names that leak, and a copy of its own in every translation unit.
  foreach(rule "using namespace" "namespace {" "static ")
    if(text MATCHES "\n${rule}")
      string(APPEND faults "${header} has '${rule}' at namespace scope\n")
    endif()
  endforeach()
  if(NOT text MATCHES "^#pragma once\n")
    string(APPEND faults "${header} does not start with #pragma once\n")
  endif()
endforeach()
if(NOT headers)
  message(FATAL_ERROR "there are no headers under ${INCLUDE}/rwkv")
elseif(faults)
  message(FATAL_ERROR "${faults}")
endif()
