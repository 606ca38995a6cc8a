// A loop over all cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace sprat {

// Calls work(i) once for every i below n, in any order. Threads take the next index when they are
// free, because cores of one board differ in speed; the caller is one of them.
template <class Work> void parallel_for(size_t n, const Work &work) {
    std::atomic<size_t> next{0};
    const auto run = [&] {
        for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) work(i);
    };
    const size_t n_threads = std::min<size_t>(n, std::max(1u, std::thread::hardware_concurrency()));
    std::vector<std::thread> others;
    for (size_t i = 1; i < n_threads; ++i) others.emplace_back(run);
    run();
    for (std::thread &other : others) other.join();
}

}  // namespace sprat
