#include "runtime/native/threads/arena.hpp"

#include <algorithm>
#include <new>

namespace sprat {
namespace {

constexpr size_t kLine = 64, kPage = 4096;
// The scratch of a GEMM task (64 KB and some) and a little more: most threads need no second chunk.
constexpr size_t kSmallestChunk = 128 * 1024;

constexpr size_t round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

}  // namespace

uint8_t *Arena::take(size_t n_bytes) {
    const size_t n = round_up(n_bytes, kLine);
    if (chunks_.empty()) add_chunk(n);
    if (used_ + n > chunks_[current_].size) {
        const bool fits_next = current_ + 1 < chunks_.size() && chunks_[current_ + 1].size >= n;
        if (!fits_next) add_chunk(n);
        ++current_, used_ = 0;
    }
    uint8_t *at = chunks_[current_].data.get() + used_;
    used_ += n;
    return at;
}

// Chunks that fill up while frames are open stay where they are, since pointers lead there. Once
// the arena is empty they become one chunk of their common size.
void Arena::release(Mark to) {
    current_ = to.chunk, used_ = to.used;
    if (current_ > 0 || used_ > 0 || chunks_.size() < 2) return;
    size_t total = 0;
    for (const Chunk &chunk : chunks_) total += chunk.size;
    chunks_.clear();
    add_chunk(total);
}

// A chunk behind the current one, in place of those that were too small. It has at least a quarter
// of what there is: buffers that grow a little at each call (of a longer context) would otherwise
// need another chunk each time.
void Arena::add_chunk(size_t at_least) {
    chunks_.resize(chunks_.empty() ? 0 : current_ + 1);
    size_t total = 0;
    for (const Chunk &chunk : chunks_) total += chunk.size;
    const size_t size = round_up(std::max({at_least, total / 4, kSmallestChunk}), kPage);
    void *data = nullptr;  // posix_memalign: Android has aligned_alloc from API 28 on
    if (posix_memalign(&data, kLine, size)) throw std::bad_alloc();
    chunks_.push_back({std::unique_ptr<uint8_t[], Free>(static_cast<uint8_t *>(data)), size});
}

}  // namespace sprat
