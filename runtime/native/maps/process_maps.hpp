// One mapping of this process, as /proc/self/maps lists it. Safe in a signal handler: system calls
// and memory on the stack only.
#pragma once

#include <climits>
#include <cstdint>

namespace sprat {

struct ProcessMap {
    uintptr_t begin, end;
    char path[PATH_MAX];  // without the mark of a deleted file; empty for memory that is no file
};

// The mapping that `address` lies in.
bool find_process_map(uintptr_t address, ProcessMap &found);

}  // namespace sprat
