#include "runtime/native/threads/forks.hpp"

#include <pthread.h>

#include <atomic>

namespace sprat {
namespace {

std::atomic<unsigned> n_forks{0};

// Registered when the core is loaded, which is never unloaded.
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { n_forks.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

unsigned forks_so_far() { return n_forks.load(std::memory_order_relaxed); }

}  // namespace sprat
