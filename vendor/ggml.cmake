# Finds or fetches ggml's source, configures it as llama.cpp does, and gives its libraries names of
# our own. Sets GGC_GGML_DIR (the source tree) and GGC_GGML_TARGETS (what a package must carry:
# ggml-base, ggml and the backend modules). Needs Python_EXECUTABLE.

set(GGC_VENDOR_DIR "${CMAKE_CURRENT_LIST_DIR}")

# Sets `result` to the ggml tree to build: GGML_SOURCE_DIR (CMake option, else environment), or the
# pinned tree, which is fetched where it is missing; and `result`_COMMIT to where it is from. A source
# distribution always carries the pinned tree.
function(ggc_find_ggml result)
    set(directory "${GGML_SOURCE_DIR}")
    set(fallback --fallback "${CMAKE_BINARY_DIR}/vendor/ggml")
    if(NOT directory)
        set(directory "$ENV{GGML_SOURCE_DIR}")
    endif()
    if(SKBUILD_STATE STREQUAL "sdist")
        set(directory "")
        set(fallback "")
    endif()
    if(directory)
        set(commit "unknown")
        get_filename_component(directory "${directory}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
        if(NOT EXISTS "${directory}/src/ggml-impl.h")
            message(FATAL_ERROR
                "GGML_SOURCE_DIR is set to ${directory}, which is no ggml source tree (it has no "
                "src/ggml-impl.h). Set it to the folder that holds ggml's CMakeLists.txt, include "
                "and src, or unset it to have the pinned ggml fetched.")
        endif()
    else()
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${GGC_VENDOR_DIR}/pin.json")
        execute_process(
            COMMAND "${Python_EXECUTABLE}" "${GGC_VENDOR_DIR}/fetch_ggml.py" ${fallback}
            OUTPUT_VARIABLE directory OUTPUT_STRIP_TRAILING_WHITESPACE
            ERROR_VARIABLE reason ERROR_STRIP_TRAILING_WHITESPACE
            RESULT_VARIABLE failed)
        if(failed)
            message(FATAL_ERROR "${reason}")
        endif()
        file(READ "${GGC_VENDOR_DIR}/pin.json" pin)
        string(JSON package GET "${pin}" package)
        string(JSON version GET "${pin}" version)
        set(commit "${package}-${version}")
    endif()
    set(${result} "${directory}" PARENT_SCOPE)
    set(${result}_COMMIT "${commit}" PARENT_SCOPE)
endfunction()

# Sets `result` to whether the compiler's _tile_loadconfig reads its whole argument. In gcc's older
# headers it is an assembly statement that names the first 8 bytes only: the optimiser drops the
# stores to the others, ggml loads a configuration of garbage, and the processor ends the process.
function(ggc_check_amx result)
    include(CheckCSourceCompiles)
    check_c_source_compiles("
        #if !defined(__clang__) && !__has_builtin(__builtin_ia32_ldtilecfg)
        #error the header has the assembly statement
        #endif
        int main(void) { return 0; }" GGC_AMX_WORKS)
    set(${result} "${GGC_AMX_WORKS}" PARENT_SCOPE)
endfunction()

# Sets the GGML_<feature> options to what the compiler's -march=native defines on this machine.
# GGML_NATIVE itself is refused by ggml on x86 where backends are loadable modules: a module must
# know what it needs, to refuse to load elsewhere.
macro(ggc_set_x86_features)
    execute_process(
        COMMAND "${CMAKE_C_COMPILER}" -march=native -dM -E -x c /dev/null
        OUTPUT_VARIABLE ggc_defines ERROR_QUIET RESULT_VARIABLE ggc_failed)
    if(ggc_failed)
        message(WARNING
            "${CMAKE_C_COMPILER} does not know -march=native: ggml's CPU backend is built for any "
            "x86-64 processor, and slow. Use a newer gcc or clang, or -DGGC_CPU_VARIANTS=all.")
        set(ggc_defines "")
    endif()
    set(ggc_features "")
    ggc_check_amx(ggc_amx_works)
    # ggml's name of a feature, and the macro that the compiler defines for it
    foreach(pair
            SSE42=SSE4_2 AVX=AVX AVX2=AVX2 BMI2=BMI2 FMA=FMA F16C=F16C AVX_VNNI=AVXVNNI
            AVX512=AVX512F AVX512_VBMI=AVX512VBMI AVX512_VNNI=AVX512VNNI AVX512_BF16=AVX512BF16
            AMX_TILE=AMX_TILE AMX_INT8=AMX_INT8 AMX_BF16=AMX_BF16)
        string(REGEX MATCH "^[^=]+" ggc_feature "${pair}")
        string(REGEX MATCH "[^=]+$" ggc_macro "${pair}")
        if(DEFINED CACHE{GGML_${ggc_feature}})
            # given by hand: it stays
        elseif(ggc_feature MATCHES "^AMX" AND NOT ggc_amx_works)
            set(GGML_${ggc_feature} OFF)
        elseif(ggc_defines MATCHES "#define __${ggc_macro}__ ")
            set(GGML_${ggc_feature} ON)
        else()
            set(GGML_${ggc_feature} OFF)
        endif()
        if(GGML_${ggc_feature})
            list(APPEND ggc_features ${ggc_feature})
        endif()
    endforeach()
    # One flag of ggml's stands for five extensions; very old 512-bit processors have only two.
    if(NOT ggc_defines MATCHES "#define __AVX512BW__ " AND NOT DEFINED CACHE{GGML_AVX512})
        set(GGML_AVX512 OFF)
    endif()
    list(JOIN ggc_features " " ggc_features)
    message(STATUS "CPU backend for this machine: ${ggc_features}")
endmacro()

# Which CPU modules are built: one for this machine, or one for every kind of processor.
macro(ggc_choose_cpu_variants)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
        set(GGML_NATIVE OFF)
        if(GGC_CPU_VARIANTS STREQUAL "native")
            ggc_set_x86_features()
        endif()
    elseif(GGC_CPU_VARIANTS STREQUAL "native" AND NOT GGML_CPU_ARM_ARCH)
        set(GGML_NATIVE ON)
    else()
        set(GGML_NATIVE OFF)
    endif()
    if(GGC_CPU_VARIANTS STREQUAL "all")
        set(GGML_CPU_ALL_VARIANTS ON)
    endif()
endmacro()

# A macro, so that the options it sets are seen by ggml's option() calls, which normal variables
# override. What llama.cpp changes in ggml's defaults is changed here as well.
macro(ggc_add_ggml)
    set(BUILD_SHARED_LIBS ON)
    set(GGML_BACKEND_DL ON)
    set(GGML_LLAMAFILE ON)
    set(GGML_CUDA_GRAPHS ON)
    set(GGML_CUDA ${GGC_CUDA})
    set(GGML_METAL ${GGC_METAL})
    set(GGML_METAL_EMBED_LIBRARY ${GGC_METAL})
    set(GGML_BLAS OFF)  # a device of its own beside the CPU, which no runner of ours asks for
    set(GGML_OPENMP ${GGC_OPENMP})
    set(GGML_ALL_WARNINGS OFF)  # not our code to mend
    ggc_choose_cpu_variants()
    # ggml would note the commit of *our* repository as its own.
    set(GIT_EXE OFF CACHE INTERNAL "")
    set(GGML_BUILD_COMMIT "${GGC_GGML_DIR_COMMIT}")
    unset(GGML_AVAILABLE_BACKENDS CACHE)  # ggml appends to what the last configuration left
    add_subdirectory("${GGC_GGML_DIR}" "${CMAKE_BINARY_DIR}/ggml" EXCLUDE_FROM_ALL SYSTEM)

    set(GGC_GGML_TARGETS ggml-base ggml ${GGML_AVAILABLE_BACKENDS})
    if(GGML_CPU_ALL_VARIANTS AND TARGET ggml-cpu-sapphirerapids)
        ggc_check_amx(ggc_amx_works)
        if(NOT ggc_amx_works)  # such processors get the best module without AMX
            list(REMOVE_ITEM GGC_GGML_TARGETS ggml-cpu-sapphirerapids)
        endif()
    endif()
    foreach(target IN LISTS GGC_GGML_TARGETS)
        ggc_make_private(${target})
    endforeach()
    if(TARGET ggml-cpu AND GGC_CPU_VARIANTS STREQUAL "native")
        ggc_tune_for_this_machine(ggml-cpu)
    endif()
endmacro()

# The dynamic loader matches libraries by SONAME across the whole process: under ggml's own names,
# the ggml of another package would be taken for ours, or ours for its own.
function(ggc_make_private target)
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME "ggc-${target}"
        LIBRARY_OUTPUT_DIRECTORY "${GGC_LIBRARY_DIR}"
        INSTALL_RPATH "${GGC_ORIGIN}"
        BUILD_WITH_INSTALL_RPATH ON
        PUBLIC_HEADER "")
    # Versions would come with symbolic links, which a wheel cannot hold.
    set_property(TARGET ${target} PROPERTY VERSION)
    set_property(TARGET ${target} PROPERTY SOVERSION)
endfunction()

# -march=native, with which llama.cpp builds, also schedules for this machine. No extension is
# added by it: those are what ggml's options say.
function(ggc_tune_for_this_machine target)
    include(CheckCCompilerFlag)
    check_c_compiler_flag(-mtune=native GGC_HAS_MTUNE_NATIVE)
    if(GGC_HAS_MTUNE_NATIVE)
        target_compile_options(${target} PRIVATE -mtune=native)
    endif()
endfunction()
