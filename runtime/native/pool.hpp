// The one thread pool of a kernel set. Threads live as long as it does: a kernel is too short to start one.
//
// A worker without work spins for as long as a step of the Python forward pass takes, then yields, then sleeps. So
// consecutive kernels find it awake, and an idle model costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace sprat {

class Pool {
  public:
    // n_threads includes the caller's. cores[i] pins worker i + 1; empty leaves placement to the system.
    explicit Pool(int n_threads, const std::vector<int> &cores = {});
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int n_threads() const { return int(workers_.size()) + 1; }

    // body(i, thread) for every i below n; one caller at a time, and never from within a body. Each thread begins with
    // its own share, the same one at every call, so that its caches keep what it read; who is done helps the others,
    // so that a slow core (a neighbour's load, a little core) does less.
    template <class Body>
    void each(int64_t n, const Body &body) {
        if (n <= 0) return;
        if (n == 1 || workers_.empty()) {
            for (int64_t i = 0; i < n; ++i) body(i, 0);
            return;
        }
        run(n, [](const void *b, int64_t i, int thread) { (*static_cast<const Body *>(b))(i, thread); }, &body);
    }

    // The same for work of `n_bytes` read, times tokens: the caller does a little alone.
    template <class Body>
    void each(int64_t n, int64_t n_bytes, const Body &body) {
        if (n_bytes >= LEAST_BYTES) return each(n, body);
        for (int64_t i = 0; i < n; ++i) body(i, 0);
    }

    // At least `bytes` for one thread, aligned to 64, kept for the next kernel. Contents are undefined.
    uint8_t *scratch(int thread, size_t bytes);

  private:
    // Read in 5 us by one thread; handing half of them to another takes 2 to 3, with caches that do not know them.
    static constexpr int64_t LEAST_BYTES = 48 * 1024;

    using Call = void (*)(const void *body, int64_t i, int thread);

    void run(int64_t n, Call call, const void *body);
    void take(int thread);
    void work(int thread);
    bool await(uint64_t &seen);

    struct Free {
        void operator()(uint8_t *p) const;
    };
    struct Buffer {
        std::unique_ptr<uint8_t[], Free> data;
        size_t bytes = 0;
    };

    struct alignas(64) Share {  // of one thread, on a cache line of its own
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    alignas(64) std::atomic<uint64_t> generation_{0};  // odd while there is work to join
    Call call_ = nullptr;
    const void *body_ = nullptr;
    alignas(64) std::atomic<int> inside_{0};  // workers that may be reading the fields above, and the shares
    std::atomic<bool> stop_{false};
    std::vector<Share> shares_;
    std::vector<Buffer> buffers_;
    std::vector<std::thread> workers_;
};

}  // namespace sprat
