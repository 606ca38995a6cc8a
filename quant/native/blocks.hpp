// Blocks with one scale, searched kLanes at a time.
#pragma once

#include "quant/native/fit.hpp"

namespace sprat {

// Levels has nearest(F), code(F), start(k) and kStarts. Calls write(block, d, codes) for each
// block.
template <class Levels, int rows, int W, class Importance, class Write>
SPRAT_INLINE void search_blocks(const float *weights, Importance importance, size_t n,
                                Write write) {
    for (size_t done = 0; done < n; done += kLanes) {
        const int here = int(std::min<size_t>(n - done, kLanes));
        LaneBlock<rows> x, codes;
        alignas(64) float d[kLanes];
        to_lanes(weights + rows * done, here, x);
        const auto w = importance.template lanes<rows>(rows * done, here);
        for (int lane = 0; lane < kLanes; lane += W) {
            store<W>(d + lane, scale_fit<W>(
                                   x, w, lane, Levels::kStarts,
                                   [](int k) SPRAT_INLINED { return Levels::start(k); },
                                   [](Floats<W> v) SPRAT_INLINED { return Levels::nearest(v); }));
            for (int i = lane; i < lane + W; ++i) d[i] = saturate_half(d[i]);
            const Floats<W> per_scale = reciprocal(load<W>(d + lane));
            for (int j = 0; j < rows; ++j)
                store<W>(&codes.row[j][lane], Levels::code(load<W>(&x.row[j][lane]) * per_scale));
        }
        for (int lane = 0; lane < here; ++lane) {
            int code[rows];
            for (int j = 0; j < rows; ++j) code[j] = int(codes.row[j][lane]);
            write(done + size_t(lane), d[lane], code);
        }
    }
}

}  // namespace sprat
