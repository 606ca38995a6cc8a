// A kernel set: the functions of one instruction set, over the threads of one pool.
#pragma once

#include <memory>
#include <mutex>

#include "runtime/native/attention.hpp"
#include "runtime/native/context.hpp"
#include "runtime/native/linear.hpp"
#include "runtime/native/moe.hpp"

namespace sprat {

struct KernelSet {
    Context context;
    LinearOps linear{context};
    AttentionOps attention{context, linear};
    MoeOps moe{context, linear};
    // Two Python threads may share a model: whoever calls holds this.
    std::unique_ptr<std::mutex> busy = std::make_unique<std::mutex>();

    KernelSet(const Isa &isa, int n_threads, const std::vector<int> &cores, int n_digits = 1)
        : context(isa, n_threads, cores, n_digits) {}

    // In a forked child, before the first call: the threads of the parent, one of which may have
    // been in the middle of a kernel, do not exist here, and what they held is never given back. So
    // all of that is made anew; the old is leaked, since it cannot be destroyed. One thread at a
    // time.
    void start_anew_after_fork() {
        if (!context.pool.is_of_parent()) return;
        (void)busy.release();
        busy = std::make_unique<std::mutex>();
        context.start_anew();
    }
};

}  // namespace sprat
