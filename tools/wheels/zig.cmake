# Zig (PyPI: ziglang) as cross compiler. In the environment: ZIG, the program; ZIG_TARGET, aarch64-linux-gnu.2.17;
# ZIG_PROCESSOR, aarch64. libc++ is linked statically, so the module needs libc and libm only.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR $ENV{ZIG_PROCESSOR})
set(CMAKE_CXX_COMPILER $ENV{ZIG} c++)
set(CMAKE_CXX_COMPILER_TARGET $ENV{ZIG_TARGET})
set(CMAKE_AR $ENV{ZIG})
set(CMAKE_CXX_ARCHIVE_CREATE "<CMAKE_AR> ar qcs <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "<CMAKE_AR> ar qs <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "")
# CMake's own tests only compile: to link one, zig first builds libc++ in a mode that nothing else uses.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
# nanobind 3.1 prints to stderr and leaves <cstdio> to other headers: Python's stable ones and libc++'s do not bring it.
set(CMAKE_CXX_FLAGS_INIT "-include cstdio")
