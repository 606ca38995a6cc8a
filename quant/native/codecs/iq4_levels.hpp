// The sixteen uneven levels of IQ4_NL and IQ4_XS; see quant/formats/iq4_nl.py.
#pragma once

#include "quant/native/fit.hpp"

namespace sprat {

constexpr int kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};

struct Iq4Levels {
    static constexpr int kStarts = 18;

    SPRAT_INLINE float start(int k) { return k < 9 ? -127.f + 5 * (k - 4) : 113.f + 5 * (k - 13); }

    // The sum of added(i) over the midpoints i between neighbouring levels that lie below `scaled`.
    // All terms are integers, so that their order does not matter.
    template <class F, class Added>
    SPRAT_INLINE F passed(F scaled, float first, const Added &added) {
        const F twice = 2.f * scaled;
        F sum = F{} + first;
        for (int i = 0; i < 15; ++i)
            sum += twice > float(kIq4Levels[i] + kIq4Levels[i + 1]) ? F{} + added(i) : F{};
        return sum;
    }
    template <class F> SPRAT_INLINE F nearest(F scaled) {
        return passed(scaled, float(kIq4Levels[0]),
                      [](int i) SPRAT_INLINED { return float(kIq4Levels[i + 1] - kIq4Levels[i]); });
    }
    template <class F> SPRAT_INLINE F code(F scaled) {
        return passed(scaled, 0.f, [](int) SPRAT_INLINED { return 1.f; });
    }
};

}  // namespace sprat
