// Ends a kernel before it is done: a cancel from any thread, or a deadline.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>

namespace sprat {

// Thrown by Pool::each on the thread of its caller, once no other thread works for it. What the
// kernel has computed is incomplete: the caller drops it.
struct Interrupted : std::exception {
    const char *what() const noexcept override { return "the forward pass was interrupted"; }
};

class Interrupt {
  public:
    void cancel() { is_set_.store(true, std::memory_order_relaxed); }

    // In seconds of CLOCK_MONOTONIC, Python's time.monotonic().
    void set_deadline(double seconds) { deadline_ns_.store(int64_t(seconds * 1e9)); }

    // Stays true once it was: a thread that leaves its work is never followed by a caller that
    // takes the work for done.
    bool is_set() {
        if (is_set_.load(std::memory_order_relaxed)) return true;
        const int64_t deadline = deadline_ns_.load(std::memory_order_relaxed);
        if (deadline == kNever || now_ns() < deadline) return false;
        cancel();
        return true;
    }

    // Interrupt of the kernels that this thread calls; null for kernels that run to their end.
    static Interrupt *&current() {
        static thread_local Interrupt *of_this_thread = nullptr;
        return of_this_thread;
    }

  private:
    static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

    static int64_t now_ns() {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
    }

    std::atomic<bool> is_set_{false};
    std::atomic<int64_t> deadline_ns_{kNever};
};

}  // namespace sprat
