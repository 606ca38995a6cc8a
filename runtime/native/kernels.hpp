// A kernel set: the functions of one instruction set, over the threads of one pool.
#pragma once

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
    std::mutex busy;  // two Python threads may share a model: whoever calls holds this

    KernelSet(const Isa &isa, int n_threads, const std::vector<int> &cores, int n_digits = 1)
        : context(isa, n_threads, cores, n_digits) {}
};

}  // namespace sprat
