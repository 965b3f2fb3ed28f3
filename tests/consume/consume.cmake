# Builds a user's project from an empty folder, one way of getting the library at a time, runs its programs, and checks that
# the library leaves the project alone.
#
#   cmake -DWAY=add_subdirectory -DWORK=build/consume -DSOURCE=. -DBUILD=build -DCOMPILER=g++ -DGENERATOR=Ninja
#         -DINCLUDES=include;/usr/include/eigen3 -P consume.cmake
#
# WAY      add_subdirectory, fetch_content, install, build_tree, sources, blocks, eigen, bare or cuda
# SOURCE   the library; BUILD: a build tree of it
# INCLUDES where the library, Eigen and nlohmann/json are: for the ways that use no CMake package
cmake_minimum_required(VERSION 3.24)
set(here "${CMAKE_CURRENT_LIST_DIR}")
set(WORK "${WORK}/${WAY}")
file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${WORK}" RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n${text}")
  endif()
endfunction()

function(configure project tree)
  run("${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${here}/${project}" -B "${tree}" "-DCMAKE_CXX_COMPILER=${COMPILER}" ${ARGN})
endfunction()

function(build_and_run tree)
  run("${CMAKE_COMMAND}" --build "${tree}")
  run("${tree}/whole")
  run("${tree}/blocks")
endfunction()

# The names and values of a cache.
function(cache_of tree result)
  file(STRINGS "${tree}/CMakeCache.txt" lines REGEX "^[A-Za-z0-9_]+:")
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

# What the library adds to the cache of a host project, beside its own variables and those of CMake's modules.
function(expect_clean_cache with without)
  cache_of("${with}" entries)
  cache_of("${without}" before)
  list(REMOVE_ITEM entries ${before})
  list(FILTER entries EXCLUDE REGEX "^(RWKV_|rwkv_(BINARY_DIR|SOURCE_DIR|IS_TOP_LEVEL)|FETCHCONTENT_|Eigen3_DIR|nlohmann_json_DIR)")
  list(FILTER entries EXCLUDE REGEX "^(CMAKE_HAVE_|FIND_PACKAGE_MESSAGE_DETAILS_|CMAKE_HOME_DIRECTORY|LIBRARY:|consumer_)")
  list(FILTER entries EXCLUDE REGEX "^CMAKE_(CACHEFILE_DIR|NUMBER_OF_MAKEFILES|FIND_PACKAGE_REDIRECTS_DIR|PROJECT_VERSION)")
  if(entries)
    message(FATAL_ERROR "the host's cache has gained or changed ${entries}")
  endif()
endfunction()

# Installs a host project and compares the list of files.
function(expect_installed tree pattern expected)
  file(REMOVE_RECURSE "${WORK}/prefix")
  run("${CMAKE_COMMAND}" --install "${tree}" --prefix "${WORK}/prefix")
  file(GLOB_RECURSE files RELATIVE "${WORK}/prefix" "${WORK}/prefix/*")
  list(FILTER files INCLUDE REGEX "${pattern}")
  if(NOT "${files}" STREQUAL "${expected}")
    message(FATAL_ERROR "installed were ${files}, expected ${expected}")
  endif()
endfunction()

if(WAY STREQUAL "add_subdirectory")
  configure(add_subdirectory "${WORK}/host" "-DLIBRARY=${SOURCE}")
  configure(add_subdirectory "${WORK}/alone")
  expect_clean_cache("${WORK}/host" "${WORK}/alone")
  build_and_run("${WORK}/host")
  expect_installed("${WORK}/host" ".*" "bin/blocks;bin/whole")
  execute_process(COMMAND "${CMAKE_CTEST_COMMAND}" --test-dir "${WORK}/host" -N OUTPUT_VARIABLE tests ERROR_VARIABLE tests)
  if(NOT tests MATCHES "Total Tests: 0|No tests were found")
    message(FATAL_ERROR "the library's tests are in the host: ${tests}")
  endif()
  configure(add_subdirectory "${WORK}/host" -DRWKV_INSTALL=ON)
  expect_installed("${WORK}/host" "rwkv\\.hpp$|rwkv-config\\.cmake$"
    "include/rwkv/rwkv.hpp;lib/cmake/rwkv/rwkv-config.cmake")
elseif(WAY STREQUAL "fetch_content")
  configure(fetch_content "${WORK}/host" "-DFETCHCONTENT_SOURCE_DIR_RWKV=${SOURCE}")
  build_and_run("${WORK}/host")
  expect_installed("${WORK}/host" ".*" "bin/blocks;bin/whole")
elseif(WAY STREQUAL "install")
  run("${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${SOURCE}" -B "${WORK}/library" "-DCMAKE_CXX_COMPILER=${COMPILER}"
      -DRWKV_BUILD_TESTS=OFF -DRWKV_BUILD_EXAMPLES=OFF -DRWKV_BUILD_BENCHMARKS=OFF)
  run("${CMAKE_COMMAND}" --build "${WORK}/library")
  run("${CMAKE_COMMAND}" --install "${WORK}/library" --prefix "${WORK}/installed")
  # Moved, because an installed package knows no absolute paths.
  file(RENAME "${WORK}/installed" "${WORK}/elsewhere")
  file(GLOB_RECURSE headers RELATIVE "${SOURCE}/include" "${SOURCE}/include/*")
  file(GLOB_RECURSE installed RELATIVE "${WORK}/elsewhere/include" "${WORK}/elsewhere/include/*")
  if(NOT "${headers}" STREQUAL "${installed}")
    message(FATAL_ERROR "the headers are ${headers}, installed were ${installed}")
  endif()
  configure(find_package "${WORK}/host" "-DCMAKE_PREFIX_PATH=${WORK}/elsewhere")
  build_and_run("${WORK}/host")
elseif(WAY STREQUAL "build_tree")
  configure(find_package "${WORK}/host" "-Drwkv_DIR=${BUILD}")
  build_and_run("${WORK}/host")
elseif(WAY STREQUAL "sources")
  # Without the packages, from sources given by hand: what a download would bring, in its layout.
  foreach(include IN LISTS INCLUDES ITEMS /usr/include)
    if(EXISTS "${include}/Eigen/Core")
      set(eigen "${include}")
    endif()
    if(EXISTS "${include}/nlohmann/json.hpp")
      file(MAKE_DIRECTORY "${WORK}/json/include")
      file(COPY "${include}/nlohmann" DESTINATION "${WORK}/json/include")
    endif()
  endforeach()
  configure(add_subdirectory "${WORK}/host" "-DLIBRARY=${SOURCE}" -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON
    -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DFETCHCONTENT_FULLY_DISCONNECTED=ON
    "-DFETCHCONTENT_SOURCE_DIR_EIGEN3=${eigen}" "-DFETCHCONTENT_SOURCE_DIR_NLOHMANN_JSON=${WORK}/json")
  build_and_run("${WORK}/host")
elseif(WAY STREQUAL "blocks")
  # Where there is no nlohmann/json: no package, no download, and no header that compiles.
  file(WRITE "${WORK}/without/nlohmann/json.hpp" "#error \"the building blocks include nlohmann/json\"\n")
  set(without "-DCMAKE_CXX_FLAGS=-I${WORK}/without" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
    -DFETCHCONTENT_FULLY_DISCONNECTED=ON)
  configure(blocks "${WORK}/host" "-DLIBRARY=${SOURCE}" -DRWKV_BLOCKS_ONLY=ON ${without})
  run("${CMAKE_COMMAND}" --build "${WORK}/host")
  run("${WORK}/host/blocks")
  configure(blocks "${WORK}/package" "-Drwkv_DIR=${BUILD}" ${without})
  run("${CMAKE_COMMAND}" --build "${WORK}/package")
  run("${WORK}/package/blocks")
  # The whole library says what is missing.
  execute_process(COMMAND "${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${here}/find_package" -B "${WORK}/whole"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" "-Drwkv_DIR=${BUILD}" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
    RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(status EQUAL 0 OR NOT text MATCHES "nlohmann_json")
    message(FATAL_ERROR "find_package(rwkv) does not ask for nlohmann_json, but says ${text}")
  endif()
elseif(WAY STREQUAL "eigen")
  # Whatever Eigen is there: packages of several versions, which hold the headers that we have. EIGEN5, if the environment
  # names it, is the prefix of a real Eigen 5.
  foreach(include IN LISTS INCLUDES ITEMS /usr/include)
    if(EXISTS "${include}/Eigen/Core")
      set(eigen "${include}")
    endif()
  endforeach()
  function(make_eigen version)
    set(folder "${WORK}/eigen-${version}/share/eigen3/cmake")
    file(CONFIGURE OUTPUT "${folder}/Eigen3Config.cmake" @ONLY CONTENT [[
if(NOT TARGET Eigen3::Eigen)
  add_library(Eigen3::Eigen INTERFACE IMPORTED)
  set_target_properties(Eigen3::Eigen PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "@eigen@")
endif()
]])
    write_basic_package_version_file("${folder}/Eigen3ConfigVersion.cmake" VERSION ${version}
      COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
  endfunction()
  include(CMakePackageConfigHelpers)
  foreach(version 3.3.9 3.4.0 5.0.1 6.0.0)
    make_eigen(${version})
  endforeach()
  # Without the one that this machine has.
  file(STRINGS "${BUILD}/CMakeCache.txt" ours REGEX "^Eigen3_DIR:")
  string(REGEX REPLACE "^[^=]*=" "" ours "${ours}")
  set(only_there "-DCMAKE_IGNORE_PATH=${ours}" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
    -DFETCHCONTENT_FULLY_DISCONNECTED=ON)
  # expect_eigen(tree version prefixes...): both ways of getting the library take that version.
  function(expect_eigen tree version)
    list(TRANSFORM ARGN PREPEND "${WORK}/eigen-")
    list(JOIN ARGN ":" prefixes)
    set(ENV{CMAKE_PREFIX_PATH} "${prefixes}")
    foreach(host "" 5)
      if(host AND NOT version MATCHES "^5")
        continue()
      endif()
      set(have ${only_there} "-DHOST_EIGEN=${host}")
      configure(blocks "${WORK}/${tree}${host}" "-DLIBRARY=${SOURCE}" -DRWKV_BLOCKS_ONLY=ON ${have})
      configure(blocks "${WORK}/${tree}${host}-package" "-Drwkv_DIR=${BUILD}" ${have})
      foreach(made "${WORK}/${tree}${host}" "${WORK}/${tree}${host}-package")
        file(STRINGS "${made}/CMakeCache.txt" found REGEX "^Eigen3_DIR:")
        if(NOT found MATCHES "eigen-${version}")
          message(FATAL_ERROR "with Eigen ${ARGN}: ${found}")
        endif()
      endforeach()
    endforeach()
  endfunction()
  expect_eigen(three 3.4.0 3.4.0)
  expect_eigen(five 5.0.1 5.0.1)
  expect_eigen(both 3.4.0 5.0.1 3.4.0)
  expect_eigen(older_first 5.0.1 3.3.9 5.0.1)
  unset(ENV{CMAKE_PREFIX_PATH})
  foreach(version 3.3.9 6.0.0)
    execute_process(COMMAND "${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${here}/blocks" -B "${WORK}/none-${version}"
      "-DCMAKE_CXX_COMPILER=${COMPILER}" "-Drwkv_DIR=${BUILD}" ${only_there} "-DCMAKE_PREFIX_PATH=${WORK}/eigen-${version}"
      RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
    if(status EQUAL 0 OR NOT text MATCHES "Eigen3.*${version}")
      message(FATAL_ERROR "with Eigen ${version} alone find_package(rwkv) says ${text}")
    endif()
  endforeach()
  # One that the host has declared, and one that is not to be looked for.
  file(CONFIGURE OUTPUT "${WORK}/source/CMakeLists.txt" @ONLY CONTENT [[
add_library(eigen INTERFACE)
add_library(Eigen3::Eigen ALIAS eigen)
target_include_directories(eigen INTERFACE "@eigen@")
]])
  configure(blocks "${WORK}/declared" "-DLIBRARY=${SOURCE}" -DRWKV_BLOCKS_ONLY=ON "-DHOST_EIGEN_SOURCE=${WORK}/source")
  execute_process(COMMAND "${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${here}/blocks" -B "${WORK}/never"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DLIBRARY=${SOURCE}" -DRWKV_BLOCKS_ONLY=ON -DFETCHCONTENT_FULLY_DISCONNECTED=ON
    -DFETCHCONTENT_TRY_FIND_PACKAGE_MODE=NEVER RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(status EQUAL 0 OR NOT text MATCHES "has no[ \n]+Eigen/Core")
    message(FATAL_ERROR "where no package is to be looked for, CMake says ${text}")
  endif()
  # Headers that are too old, as where a host sets its own include folders.
  file(WRITE "${WORK}/old/Eigen/Core" "#define EIGEN_VERSION_AT_LEAST(x, y, z) 0\n")
  execute_process(COMMAND "${COMPILER}" -std=c++20 "-I${WORK}/old" "-I${SOURCE}/include" -fsyntax-only -x c++
    "${SOURCE}/include/rwkv/backend/cpu/pack.hpp" RESULT_VARIABLE status ERROR_VARIABLE text)
  if(status EQUAL 0 OR NOT text MATCHES "rwkv: Eigen 3.4 or newer is needed")
    message(FATAL_ERROR "with the headers of an older Eigen the compiler says ${text}")
  endif()
  set(built "${WORK}/five")
  if(DEFINED ENV{EIGEN5})
    set(built "${WORK}/real")
    configure(blocks "${built}" "-DLIBRARY=${SOURCE}" -DRWKV_BLOCKS_ONLY=ON ${only_there} "-DCMAKE_PREFIX_PATH=$ENV{EIGEN5}")
  endif()
  run("${CMAKE_COMMAND}" --build "${built}")
  run("${built}/blocks")
elseif(WAY STREQUAL "bare")
  list(TRANSFORM INCLUDES PREPEND "-I")
  foreach(program whole blocks)
    run("${COMPILER}" -std=c++20 -O2 ${INCLUDES} "${here}/${program}.cpp" -o "${WORK}/${program}" -pthread)
    run("${WORK}/${program}")
  endforeach()
  # And with its compiled part.
  run("${COMPILER}" -std=c++20 -DRWKV_COMPILED ${INCLUDES} "${here}/whole.cpp" "${SOURCE}/include/rwkv/compiled.cpp"
    -o "${WORK}/compiled" -pthread)
  run("${WORK}/compiled")
elseif(WAY STREQUAL "cuda")
  # The compiler that -DNVCC names.
  configure(cuda "${WORK}/host" "-Drwkv_DIR=${BUILD}" "-DCMAKE_CUDA_COMPILER=${NVCC}" -DCMAKE_CUDA_ARCHITECTURES=90)
  run("${CMAKE_COMMAND}" --build "${WORK}/host")
  run("${WORK}/host/server")
else()
  message(FATAL_ERROR "there is no way called '${WAY}'")
endif()
