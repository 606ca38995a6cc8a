// MXFP4, NVFP4: 4-bit floats with a scale of eight bits; see quant/formats/fp4.py.
#include "quant/native/fit.hpp"

namespace sprat {
namespace {

constexpr int kLevels[8] = {0, 1, 2, 3, 4, 6, 8, 12};  // of codes 0 to 7; those of 8 to 15 negated

// The sum of added(i) over the midpoints between levels i and i + 1 that lie below |scaled|.
template <class F, class Added> SPRAT_INLINE F passed(F scaled, const Added &added) {
    const F twice = 2.f * magnitude(scaled);
    F sum{};
    for (int i = 0; i < 7; ++i)
        sum += twice > float(kLevels[i] + kLevels[i + 1]) ? F{} + added(i) : F{};
    return sum;
}

template <class F> SPRAT_INLINE F nearest_level(F scaled) {
    const F level =
        passed(scaled, [](int i) SPRAT_INLINED { return float(kLevels[i + 1] - kLevels[i]); });
    return scaled < 0.f ? -level : level;
}

template <class F> SPRAT_INLINE F nearest_code(F scaled) {
    const F code = passed(scaled, [](int) SPRAT_INLINED { return 1.f; });
    return scaled < 0.f ? (code > 0.f ? code + 8.f : code) : code;
}

SPRAT_INLINE float level_of(int code) {
    return float(code & 8 ? -kLevels[code & 7] : kLevels[code & 7]);
}

// Half of E8M0: 2^(e - 128). NaN above 223, 2^95; see quant/formats/fp4.py.
struct PowerOfTwo {
    static constexpr int kRows = 32, kCandidates = 3;

    SPRAT_INLINE float value(int code) {
        if (code > 223) return __builtin_nanf("");
        return from_bits(code < 2 ? 0x00200000u << code : uint32_t(code - 1) << 23);
    }
    SPRAT_INLINE int candidate(float absmax, int i) {
        constexpr int kSteps[3] = {-2, -3, -1};
        return std::clamp(int(bits_of(absmax) >> 23) + kSteps[i], 2, 223);
    }
};

// Half of UE4M3; bit 7 is ignored and 0x7f is 0.
struct EightBitFloat {
    static constexpr int kRows = 16, kCandidates = 5;

    SPRAT_INLINE float value(int code) {
        const int exponent = code >> 3 & 15, mantissa = code & 7;
        const float power = from_bits(uint32_t(127 - 11 + (exponent ? exponent : 1)) << 23);
        return code == 0x7f ? 0.f : float(exponent ? 8 + mantissa : mantissa) * power;
    }
    SPRAT_INLINE int candidate(float absmax, int i) {
        constexpr int kSteps[5] = {0, -1, 1, -2, 2};
        const float wanted = absmax / 12.f;
        int center = 0;
        for (int code = 0; code < 0x7f; ++code) center += value(code) < wanted;
        return std::clamp(center + kSteps[i], 0, 0x7e);
    }
};

// Codes of the scales of kLanes blocks, and of their weights, row by row.
template <class Scale> struct Lanes {
    int scale[kLanes];
    LaneBlock<Scale::kRows> codes;
};

// _best: of each lane's candidates the first with the smallest error.
template <class Scale, int W, int rows, class Weights>
SPRAT_INLINE void fit_lanes(const LaneBlock<rows> &x, const Weights &weights, Lanes<Scale> &found) {
    using F = Floats<W>;
    alignas(64) float absmax[kLanes] = {}, error[kLanes], scale[kLanes], least[kLanes];
    int code[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        for (int j = 0; j < rows; ++j)
            absmax[lane] = std::max(absmax[lane], magnitude(x.row[j][lane]));
        least[lane] = __builtin_inff();
        found.scale[lane] = Scale::candidate(absmax[lane], 0);
    }
    for (int i = 0; i < Scale::kCandidates; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) {
            code[lane] = Scale::candidate(absmax[lane], i);
            scale[lane] = Scale::value(code[lane]);
        }
        for (int lane = 0; lane < kLanes; lane += W) {
            const F s = load<W>(scale + lane), per_scale = reciprocal(s);
            F total{};
            for (int j = 0; j < rows; ++j) {
                const F x_j = load<W>(&x.row[j][lane]);
                const F off = s * nearest_level(x_j * per_scale) - x_j;
                total += weights.weigh(off * off, j, lane);
            }
            store<W>(error + lane, total);
        }
        for (int lane = 0; lane < kLanes; ++lane)
            if (error[lane] < least[lane]) {
                least[lane] = error[lane];
                found.scale[lane] = code[lane];
            }
    }
    for (int lane = 0; lane < kLanes; ++lane) scale[lane] = Scale::value(found.scale[lane]);
    for (int lane = 0; lane < kLanes; lane += W) {
        const F per_scale = reciprocal(load<W>(scale + lane));
        for (int j = 0; j < rows; ++j)
            store<W>(&found.codes.row[j][lane], nearest_code(load<W>(&x.row[j][lane]) * per_scale));
    }
}

// kSub scales, then the codes of their sub-blocks, i and i + half to a byte.
template <class Scale, int kSub> struct Blocks : Searched<Blocks<Scale, kSub>> {
    static constexpr int kRows = Scale::kRows, kHalf = kRows / 2;
    static constexpr size_t block_bytes = kSub + kSub * kHalf;

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        for (size_t done = 0; done < n * kSub; done += kLanes) {
            const int here = int(std::min<size_t>(n * kSub - done, kLanes));
            LaneBlock<kRows> x;
            Lanes<Scale> found;
            to_lanes(weights + kRows * done, here, x);
            const auto w = importance.template lanes<kRows>(kRows * done, here);
            fit_lanes<Scale, W>(x, w, found);
            for (int lane = 0; lane < here; ++lane) {
                const size_t at = done + size_t(lane), sub = at % kSub;
                uint8_t *block = packed + at / kSub * block_bytes;
                block[sub] = uint8_t(found.scale[lane]);
                for (int j = 0; j < kHalf; ++j)
                    block[kSub + sub * kHalf + size_t(j)] = uint8_t(
                        int(found.codes.row[j][lane]) | int(found.codes.row[j + kHalf][lane]) << 4);
            }
        }
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, packed += block_bytes)
            for (int sub = 0; sub < kSub; ++sub, weights += kRows) {
                const float scale = Scale::value(packed[sub]);
                const uint8_t *qs = packed + kSub + sub * kHalf;
                for (int j = 0; j < kHalf; ++j) {
                    weights[j] = scale * level_of(qs[j] & 15);
                    weights[j + kHalf] = scale * level_of(qs[j] >> 4);
                }
            }
    }
};

using BlocksMx = Blocks<PowerOfTwo, 1>;
using BlocksNv = Blocks<EightBitFloat, 4>;

}  // namespace

SPRAT_DEFINE_CODEC(MXFP4, BlocksMx)
SPRAT_DEFINE_CODEC(NVFP4, BlocksNv)

}  // namespace sprat
