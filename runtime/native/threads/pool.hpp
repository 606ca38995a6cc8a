// The one thread pool of a kernel set. Threads live as long as it does: a kernel is too short to
// start one.
//
// A worker without work spins for as long as the Python between two kernels takes, then yields,
// then sleeps. So consecutive kernels find it awake, and an idle model costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/native/threads/forks.hpp"
#include "runtime/native/threads/interrupt.hpp"

namespace sprat {

class Pool {
  public:
    // n_threads includes the caller's. cores[i] pins worker i + 1; empty leaves placement to the
    // system.
    explicit Pool(int n_threads, const std::vector<int> &cores = {});
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int n_threads() const { return int(workers_->size()) + 1; }

    // Whether this process was forked from the one that started the workers, which do not exist
    // here.
    bool is_of_parent() const { return forks_ != forks_so_far(); }
    // Forgets workers that do not exist, and starts others.
    void start_anew();

    // body(i, thread) for every i below n; one caller at a time, and never from within a body.
    //
    // A static partition with work stealing: each thread begins with its own share, the same one at
    // every call, so that its caches keep the weights that it read; a thread that is done takes
    // items from the others, so that a slow core (a little core, or one that others use too) does
    // less.
    //
    // Throws Interrupted when the caller's Interrupt is set, which is looked at before every item.
    template <class Body> void each(int64_t n, const Body &body) {
        if (n <= 0) return;
        if (n == 1 || workers_->empty()) return alone(n, body);
        run(
            n,
            [](const void *b, int64_t i, int thread) {
                (*static_cast<const Body *>(b))(i, thread);
            },
            &body);
    }

    // The same for work that reads `n_bytes` (times tokens): the caller alone does what is too
    // little.
    template <class Body> void each(int64_t n, int64_t n_bytes, const Body &body) {
        if (n_bytes >= kMinSharedBytes) return each(n, body);
        alone(n, body);
    }

    // Whether the work that runs is to be left; a long item looks at it, too.
    bool interrupted() const { return interrupt_ && interrupt_->is_set(); }
    static bool stops(const void *pool) { return static_cast<const Pool *>(pool)->interrupted(); }

  private:
    // One thread reads 48 KB in 5 us, at 10 GB/s. Handing half of them to another costs 2 to 3 us,
    // and its caches do not hold them: below this nothing is gained.
    static constexpr int64_t kMinSharedBytes = 48 * 1024;

    using Call = void (*)(const void *body, int64_t i, int thread);

    void start_workers();
    template <class Body> void alone(int64_t n, const Body &body) {
        interrupt_ = Interrupt::current();
        for (int64_t i = 0; i < n && !interrupted(); ++i) body(i, 0);
        if (interrupted()) throw Interrupted();
    }

    void run(int64_t n, Call call, const void *body);
    void drain(int thread);
    void work(int thread);
    bool await(uint64_t &seen);

    struct alignas(64) Share {  // of one thread, on a cache line of its own
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    alignas(64) std::atomic<uint64_t> generation_{0};  // odd while there is work to join
    Call call_ = nullptr;
    const void *body_ = nullptr;
    Interrupt *interrupt_ = nullptr;
    alignas(64) std::atomic<int> inside_{
        0};  // workers that may be reading the fields above, and the shares
    std::atomic<bool> stop_{false};
    std::vector<Share> shares_;
    const std::vector<int> cores_;
    unsigned forks_ = forks_so_far();
    std::unique_ptr<std::vector<std::thread>> workers_;
};

}  // namespace sprat
