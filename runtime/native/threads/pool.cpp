#include "runtime/native/threads/pool.hpp"

#include <sched.h>

namespace sprat {
namespace {

// About 50 us of pauses (some 12 ns each on x86-64): the Python between two kernels takes 5 to 20
// us, so a worker is still awake when the next kernel comes.
constexpr int kSpins = 4000;
constexpr int kYields = 200;  // then let others run, still awake

void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// The calling thread. By sched_setaffinity, since Android's C library has no
// pthread_setaffinity_np before API 36.
void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    // Fails for a core that we may not use: the thread stays unpinned then.
    sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

Pool::Pool(int n_threads, const std::vector<int> &cores)
    : shares_(n_threads), cores_(cores), workers_(std::make_unique<std::vector<std::thread>>()) {
    start_workers();
}

void Pool::start_workers() {
    for (int thread = 1; thread < int(shares_.size()); ++thread) {
        const int core = size_t(thread) <= cores_.size() ? cores_[thread - 1] : -1;
        workers_->emplace_back([this, thread, core] {
            if (core >= 0) pin(core);
            work(thread);
        });
    }
}

Pool::~Pool() {
    if (is_of_parent()) {
        (void)workers_.release();  // neither to be joined nor detached
        return;
    }
    stop_.store(true);
    generation_.fetch_add(1);
    generation_.notify_all();
    for (auto &worker : *workers_) worker.join();
}

// The parent may have been in the middle of work.
void Pool::start_anew() {
    forks_ = forks_so_far();
    (void)workers_.release();
    workers_ = std::make_unique<std::vector<std::thread>>();
    generation_.store(0);
    inside_.store(0);
    start_workers();
}

// The caller does not wait for a worker that has not joined: on a busy machine it may sleep for
// longer than the work takes. A worker enters (inside_), and only then looks whether the generation
// is odd; the caller makes it even, and only then looks whether anyone is inside. So either the
// worker sees that the work is over, or the caller sees the worker.
void Pool::run(int64_t n, Call call, const void *body) {
    call_ = call, body_ = body, interrupt_ = Interrupt::current();
    for (int64_t t = 0; t < n_threads(); ++t) {
        shares_[t].next.store(n * t / n_threads(), std::memory_order_relaxed);
        shares_[t].end = n * (t + 1) / n_threads();
    }
    generation_.fetch_add(1);
    generation_.notify_all();
    drain(0);
    generation_.fetch_add(1);
    for (int spins = 0; inside_.load() != 0; ++spins) {
        if (spins < kSpins) pause_cpu();
        else sched_yield();
    }
    if (interrupted()) throw Interrupted();
}

void Pool::drain(int thread) {
    for (int t = 0; t < n_threads(); ++t) {
        Share &share = shares_[(thread + t) % n_threads()];
        for (int64_t i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
            if (interrupted()) return;
            call_(body_, i, thread);
        }
    }
}

void Pool::work(int thread) {
    for (uint64_t seen = 0; await(seen);) {
        inside_.fetch_add(1);
        if (generation_.load() % 2) drain(thread);
        inside_.fetch_sub(1);
    }
}

// Waits for another odd generation than the one seen; false when the pool ends.
bool Pool::await(uint64_t &seen) {
    for (int spins = 0;; ++spins) {
        const uint64_t now = generation_.load();
        if (stop_.load()) return false;
        if (now != seen && now % 2) return seen = now, true;
        if (spins < kSpins) pause_cpu();
        else if (spins < kSpins + kYields) sched_yield();
        else generation_.wait(now);
    }
}

}  // namespace sprat
