// CPU time of the repetitions of some work.
#pragma once

#include <cstdint>
#include <cstdio>
#include <ctime>

inline double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

// Repeats the work, and prints the least CPU time in seconds that this thread took for it: other
// programs on the machine only add to it.
template <class Work> void repeat(int64_t n, const Work &work) {
    double least = 1e9;
    for (int64_t i = 0; i < n; ++i) {
        const double start = cpu_seconds();
        work();
        const double taken = cpu_seconds() - start;
        if (taken < least) least = taken;
    }
    std::printf("%.9f\n", least);
}
