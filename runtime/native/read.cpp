#include "runtime/native/read.hpp"

#include <atomic>
#include <cstring>

namespace sprat {
namespace {

// Reads as gemv.hpp reads the rows of a weight, so that it is the limit of that: tasks of 64 KB,
// four streams in each, prefetching a kilobyte ahead. One stream per thread reached 20 GB/s where
// four reached 32 and eight no more (docs/speed.md).
constexpr int64_t kTask = 64 * 1024, kStreams = 4, kStream = kTask / kStreams,
                  kPrefetchBytes = 1024;

typedef uint64_t Line __attribute__((vector_size(64)));

}  // namespace

uint64_t read_all(Pool &pool, const uint8_t *data, int64_t n_bytes) {
    std::atomic<uint64_t> all{0};
    pool.each(n_bytes / kTask, [&](int64_t i, int) {
        Line seen[kStreams] = {};
        for (int64_t at = 0; at < kStream; at += sizeof(Line)) {
            // Beyond the end of a stream lies the next one, which was read already: fetch the next
            // task's.
            const int64_t ahead =
                at + kPrefetchBytes < kStream ? kPrefetchBytes : kPrefetchBytes + kTask - kStream;
            for (int s = 0; s < kStreams; ++s) {
                const uint8_t *from = data + i * kTask + s * kStream + at;
                __builtin_prefetch(from + ahead);
                Line line;
                std::memcpy(&line, from, sizeof line);
                seen[s] |= line;
            }
        }
        all.fetch_or(((seen[0] | seen[1]) | (seen[2] | seen[3]))[0], std::memory_order_relaxed);
    });
    return all.load();
}

}  // namespace sprat
