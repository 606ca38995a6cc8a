#include "runtime/native/threads/arena.hpp"

#include <algorithm>
#include <new>

namespace sprat {
namespace {

constexpr size_t kPage = 4096;
// The scratch of a GEMM task (64 KB and some) and a little more: most threads need no other chunk.
constexpr size_t kSmallestChunk = 128 * 1024;

}  // namespace

// A chunk behind the current one, which is full. It has at least a quarter of what there is:
// buffers that grow a little at each call (of a longer context) would otherwise need another chunk
// each time.
void Arena::next_chunk(size_t at_least) {
    const bool is_first = chunks_.empty();
    const size_t next = is_first ? 0 : current_ + 1;
    if (next < chunks_.size() && chunks_[next].size < at_least) chunks_.resize(next);
    if (next >= chunks_.size()) {
        size_t total = 0;
        for (const Chunk &chunk : chunks_) total += chunk.size;
        append_chunk(std::max({at_least, total / 4, kSmallestChunk}));
    }
    select(next);
}

// Chunks that were added while frames are open stay where they are, since pointers lead there. Once
// the arena is empty they become one chunk of their common size.
void Arena::release_chunks(Mark to) {
    if (to.chunk == 0 && to.used == 0 && chunks_.size() > 1) {
        size_t total = 0;
        for (const Chunk &chunk : chunks_) total += chunk.size;
        chunks_.clear();
        append_chunk(total);
    }
    if (chunks_.empty()) return;
    select(to.chunk);
    used_ = to.used;
}

void Arena::append_chunk(size_t size) {
    const size_t whole_pages = (size + kPage - 1) / kPage * kPage;
    void *data = nullptr;  // posix_memalign: Android has aligned_alloc from API 28 on
    if (posix_memalign(&data, 64, whole_pages)) throw std::bad_alloc();
    auto *bytes = static_cast<uint8_t *>(data);
    chunks_.push_back({std::unique_ptr<uint8_t[], Free>(bytes), whole_pages});
}

void Arena::select(size_t chunk) {
    current_ = chunk, used_ = 0;
    data_ = chunks_[chunk].data.get(), size_ = chunks_[chunk].size;
}

}  // namespace sprat
