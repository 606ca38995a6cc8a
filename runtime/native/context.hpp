// Context of all operations of a kernel set: functions of an instruction set, threads, scratch
// memory.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/native/isa/isa.hpp"
#include "runtime/native/threads/arena.hpp"
#include "runtime/native/threads/pool.hpp"

namespace sprat {

class Context {
  public:
    // n_digits: 1 for activations in int8; 2 for exact products, which quantize the residual of
    // that once more (15 bits in all, twice the work).
    Context(const Isa &isa, int n_threads, const std::vector<int> &cores, int n_digits)
        : isa(isa),
          n_digits(n_digits),
          pool(n_threads, cores),
          arenas_(std::make_unique<std::vector<Arena>>(size_t(n_threads))) {}

    int n_threads() const { return pool.n_threads(); }

    // Temporary memory of a thread; the caller's is that of thread 0.
    Frame frame(int thread = 0) { return Frame((*arenas_)[size_t(thread)]); }

    // See KernelSet::start_anew_after_fork.
    void start_anew() {
        pool.start_anew();
        const size_t n = arenas_.release()->size();
        arenas_ = std::make_unique<std::vector<Arena>>(n);
    }

    // body(token, thread) for each of n tokens of k elements. One token takes about a microsecond,
    // too little to wake another thread for: a piece has 16,384 elements at least.
    template <class Body> void each_token(int64_t n, int64_t k, const Body &body) {
        const int64_t per_piece = std::max<int64_t>(1, 16384 / k);
        pool.each((n + per_piece - 1) / per_piece, [&](int64_t i, int thread) {
            for (int64_t t = i * per_piece; t < std::min(n, (i + 1) * per_piece); ++t)
                body(t, thread);
        });
    }

    const Isa &isa;
    const int n_digits;
    Pool pool;

  private:
    std::unique_ptr<std::vector<Arena>> arenas_;
};

}  // namespace sprat
