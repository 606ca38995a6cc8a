// Temporary memory of one thread, handed out as a stack.
//
// A kernel opens a Frame, takes what it needs, and the frame gives all of it back when the kernel
// returns. The memory itself is kept for the next kernel: after a few calls nothing is allocated
// any more, and a thread's scratch lies where it lay before, in its caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace sprat {

// Aligned to cache lines, since all threads move their `used_` at once.
class alignas(64) Arena {
  public:
    struct Mark {
        size_t chunk, used;
    };

    // Aligned to 64, contents undefined.
    uint8_t *take(size_t n_bytes) {
        const size_t n = (n_bytes + 63) / 64 * 64;
        if (used_ + n > size_) next_chunk(n);
        uint8_t *at = data_ + used_;
        used_ += n;
        return at;
    }

    Mark mark() const { return {current_, used_}; }

    void release(Mark to) {
        if (to.chunk == current_ && chunks_.size() == 1) used_ = to.used;
        else release_chunks(to);
    }

  private:
    struct Free {
        void operator()(uint8_t *p) const { std::free(p); }
    };
    struct Chunk {
        std::unique_ptr<uint8_t[], Free> data;
        size_t size;
    };

    void next_chunk(size_t at_least);
    void release_chunks(Mark to);
    void append_chunk(size_t size);
    void select(size_t chunk);

    uint8_t *data_ = nullptr;  // of the current chunk
    size_t size_ = 0, used_ = 0;
    size_t current_ = 0;
    std::vector<Chunk> chunks_;
};

// Memory until the end of a scope. Frames of one arena close in the reverse order of opening.
class Frame {
  public:
    explicit Frame(Arena &arena) : arena_(arena), mark_(arena.mark()) {}
    ~Frame() { arena_.release(mark_); }
    Frame(const Frame &) = delete;
    Frame &operator=(const Frame &) = delete;

    // n objects of T, uninitialised.
    template <class T> T *get(int64_t n) {
        return reinterpret_cast<T *>(arena_.take(size_t(n) * sizeof(T)));
    }

  private:
    Arena &arena_;
    Arena::Mark mark_;
};

}  // namespace sprat
