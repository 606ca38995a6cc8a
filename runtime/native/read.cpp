// What the memory gives when nothing is done with it: the limit that products are measured against.
#include <atomic>
#include <cstring>

#include "runtime/native/kernels.hpp"

namespace sprat {
namespace {

// Pieces of 64 KB, four streams in each, as products with one token read their rows: one stream per thread got 20 GB/s
// where four got 32 and eight no more.
constexpr int64_t PIECE = 64 * 1024, STREAMS = 4, STREAM = PIECE / STREAMS, AHEAD = 1024;

typedef uint64_t Words __attribute__((vector_size(64)));

}  // namespace

uint64_t KernelSet::read(const uint8_t *data, int64_t n_bytes) {
    std::atomic<uint64_t> all{0};
    pool_.each(n_bytes / PIECE, [&](int64_t i, int) {
        Words seen[STREAMS] = {};
        for (int64_t at = 0; at < STREAM; at += sizeof(Words)) {
            const int64_t ahead = at + AHEAD < STREAM ? AHEAD : AHEAD + PIECE - STREAM;  // then in the next piece
            for (int s = 0; s < STREAMS; ++s) {
                const uint8_t *from = data + i * PIECE + s * STREAM + at;
                __builtin_prefetch(from + ahead);
                Words words;
                std::memcpy(&words, from, sizeof words);
                seen[s] |= words;
            }
        }
        all.fetch_or(((seen[0] | seen[1]) | (seen[2] | seen[3]))[0], std::memory_order_relaxed);
    });
    return all.load();
}

}  // namespace sprat
