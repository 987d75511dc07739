# CMake toolchain file: finds an Emscripten and includes its own platform file.
#
# Order: -DEMSCRIPTEN_ROOT_PATH / $EMSCRIPTEN_ROOT_PATH, $EMSDK, em-config on PATH, .toolchain/emscripten.
# scripts/setup.js probes for one that builds final relaxed SIMD and passes it as EMSCRIPTEN_ROOT_PATH.
#
# The only place that names the instruction set flags. src/CMakeLists.txt uses, as lists for target_compile_options:
#   FM_FLAGS_SIMD128   128-bit SIMD
#   FM_FLAGS_RELAXED   128-bit SIMD and relaxed SIMD
#   FM_FLAGS_THREADS   atomics, for a shared memory
#   FM_FLAGS_MEMORY64  64-bit addresses; at the link too
set(FM_FLAGS_SIMD128 -msimd128)
set(FM_FLAGS_RELAXED -msimd128 -mrelaxed-simd)
set(FM_FLAGS_THREADS -matomics -mbulk-memory)
set(FM_FLAGS_MEMORY64 -sMEMORY64=1 -Wno-experimental)

list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EMSCRIPTEN_ROOT_PATH)
set(_em_candidates "${EMSCRIPTEN_ROOT_PATH}" "$ENV{EMSCRIPTEN_ROOT_PATH}")
if(DEFINED ENV{EMSDK})
  list(APPEND _em_candidates "$ENV{EMSDK}/upstream/emscripten")
endif()
find_program(_em_config em-config)
if(_em_config)
  execute_process(COMMAND "${_em_config}" EMSCRIPTEN_ROOT OUTPUT_VARIABLE _em_root OUTPUT_STRIP_TRAILING_WHITESPACE
                  ERROR_QUIET RESULT_VARIABLE _em_rc)
  if(_em_rc EQUAL 0)
    list(APPEND _em_candidates "${_em_root}")
  endif()
endif()
list(APPEND _em_candidates "${CMAKE_CURRENT_LIST_DIR}/.toolchain/emscripten")
foreach(_candidate IN LISTS _em_candidates)
  if(_candidate AND EXISTS "${_candidate}/cmake/Modules/Platform/Emscripten.cmake")
    set(EMSCRIPTEN_ROOT_PATH "${_candidate}" CACHE PATH "Emscripten root")
    set(ENV{EMSCRIPTEN_ROOT_PATH} "${_candidate}")
    include("${_candidate}/cmake/Modules/Platform/Emscripten.cmake")
    return()
  endif()
endforeach()
message(FATAL_ERROR "Emscripten not found: run npm run build, or put emcc on PATH, or set EMSDK")
