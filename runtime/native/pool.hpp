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

    // body(i, thread) for every i below n; one caller at a time, and never from within a body. Threads take the next i when they are done with one, so that a slow core
    // (a neighbour's load, a little core) takes fewer.
    template <class Body>
    void each(int64_t n, const Body &body) {
        if (n <= 0) return;
        if (n == 1 || workers_.empty()) {
            for (int64_t i = 0; i < n; ++i) body(i, 0);
            return;
        }
        run(n, [](const void *b, int64_t i, int thread) { (*static_cast<const Body *>(b))(i, thread); }, &body);
    }

    // At least `bytes` for one thread, aligned to 64, kept for the next kernel. Contents are undefined.
    uint8_t *scratch(int thread, size_t bytes);

  private:
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

    Call call_ = nullptr;
    const void *body_ = nullptr;
    int64_t n_ = 0;
    // Each on its own cache line: every thread writes next_, while the others are being read.
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<int> inside_{0};           // workers that may be reading the fields above
    alignas(64) std::atomic<uint64_t> generation_{0};  // odd while there is work to join
    std::atomic<bool> stop_{false};
    std::vector<Buffer> buffers_;
    std::vector<std::thread> workers_;
};

}  // namespace sprat
