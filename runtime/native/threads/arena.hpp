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

class alignas(64) Arena {  // threads bump theirs at once: each on cache lines of its own
  public:
    struct Mark {
        size_t chunk = 0, used = 0;
    };

    uint8_t *take(size_t n_bytes);  // aligned to 64, contents undefined
    Mark mark() const { return {current_, used_}; }
    void release(Mark to);

  private:
    struct Free {
        void operator()(uint8_t *p) const { std::free(p); }
    };
    struct Chunk {
        std::unique_ptr<uint8_t[], Free> data;
        size_t size;
    };

    void add_chunk(size_t at_least);

    std::vector<Chunk> chunks_;
    size_t current_ = 0, used_ = 0;  // the chunk that is being handed out, and bytes of it
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
