// GEMV of super-blocks whose scales (and minima) are bytes, 8 or 16 of them to two binary16 factors.
// Widening a byte to float32, multiplying it with the row's factor and with the activations' scale
// takes as many operations as eight codes. Here a table lookup puts a byte u into bits 16 to 23 of
// the float 0.5, which is then 0.5 + u / 256, and one multiply-add makes the rest:
//
//   (u - zero) * d  =  (0.5 + u / 256) * (256 d) - (128 + zero) * d
//
// with 256 d and (128 + zero) d made once per token. The row's factors are multiplied with the sums
// of the group.
#pragma once

namespace {

// What a format says of its super-blocks (the definitions below):
//
//   kRegisters            of four sums each
//   scale_of(i, l)        the number of the scale that lane l of register i takes
//   factor(i, l)          what its codes are multiplied by, as they are not shifted to bit 0
//   kScaleZero            the byte that stands for the scale 0
//   scales(g), mins(g)    the bytes, by number
//   d(g), dmin(g)         their factors
//   arrange(q, to)        the activations in the order in which sums<i>() reads them
//   codes<i>(g)           what register i takes, once for all tokens
//   sums(start, codes, q) register i
template <class D> struct ByteScales;
template <class D>
concept HasByteScales = requires { ByteScales<D>::kRegisters; };

// Of one group and token.
template <class D> struct GroupInput {
    typedef ByteScales<D> S;
    static constexpr int n = S::kRegisters;

    alignas(16) int8_t q[256];
    Start start[n * S::kStarts];
    float d[n][4], zero[n][4];      // 256 d and -(128 + zero) d
    float sum[n][4], no_sum[n][4];  // of activations, times 256 d and -128 d

    explicit INLINE GroupInput(const Token &x, int64_t block) {
        S::arrange(x.q + 32 * block, q);
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < 4; ++l) {
                const int at = S::scale_of(i, l), factor = S::factor(i, l);
                const float own = x.d[block + (D::kHalves ? at / 2 : at)];
                const int32_t codes = D::kHalves ? x.sum16[2 * block + at] : x.sum32[block + at];
                const int32_t begin = kDotStart - kBias<D> * factor * codes;
                if constexpr (S::kStarts == 1) start[i].lanes[l] = begin;
                else start[4 * i + l] = {{begin}};
                d[i][l] = 256 * own / float(factor);
                zero[i][l] = -(128 + S::kScaleZero) * own / float(factor);
                sum[i][l] = 256 * own * float(codes), no_sum[i][l] = -128 * own * float(codes);
            }
    }
    GroupInput() = default;
};

// 0.5 + u / 256 of four bytes u, which register i takes.
template <class D> INLINE F half_and_bytes(uint8x16_t bytes, int i) {
    alignas(16) static constexpr float kHalf[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    alignas(16) static constexpr auto where = [] {
        struct {
            uint8_t at[ByteScales<D>::kRegisters][16];
        } o{};
        for (int r = 0; r < ByteScales<D>::kRegisters; ++r)
            for (int b = 0; b < 16; ++b)  // 255 leaves the byte of 0.5
                o.at[r][b] = b % 4 == 2 ? uint8_t(ByteScales<D>::scale_of(r, b / 4)) : 255;
        return o;
    }();
    return (F)vqtbx1q_u8(load_again<uint8x16_t>(kHalf), bytes, vld1q_u8(where.at[i]));
}

template <class D>
    requires(BlockDecoder<D> && HasByteScales<D>)
struct Steps<D> {
    static constexpr int N = 1, kBlocks = 8, kBiasLeft = 0;
    static constexpr bool kWholeGroups = true;
    typedef ByteScales<D> S;
    typedef GroupInput<D> Input;

    static INLINE Input input(const Token &x, int64_t block) { return Input(x, block); }

    template <int T, class Q>
    static INLINE void add_group(F (&dot)[T], const uint8_t *g, const Q (&q)[T]) {
        const uint8x16_t scales = S::scales(g);
        F group[T] = {};
#pragma GCC unroll 4
        for (int i = 0; i < S::kRegisters; ++i) {
            const F scale = half_and_bytes<D>(scales, i);
            const auto codes = S::codes(g, i);
            for (int t = 0; t < T; ++t) {
                const Input &x = q[t].at[0];
                const F product = multiply_add(x.zero[i], scale, x.d[i]);
                group[t] += started(S::sums(x.start, codes, x.q, i)) * product;
            }
        }
        for (int t = 0; t < T; ++t) dot[t] += group[t] * S::d(g);
        if constexpr (D::kHasMin) {
            const uint8x16_t mins = S::mins(g);
            F minimum[T] = {};
#pragma GCC unroll 4
            for (int i = 0; i < S::kRegisters; ++i) {
                const F each = half_and_bytes<D>(mins, i);
                for (int t = 0; t < T; ++t)
                    minimum[t] += multiply_add(q[t].at[0].no_sum[i], each, q[t].at[0].sum[i]);
            }
            for (int t = 0; t < T; ++t) dot[t] -= minimum[t] * S::dmin(g);
        }
    }

  private:
    static INLINE F multiply_add(const float *to, F a, const float *b) {
        return (F)vfmaq_f32(load_again<float32x4_t>(to), (float32x4_t)a, vld1q_f32(b));
    }
};

// Four blocks of 32 in their order, a lane each.
template <class D> struct BlocksInOrder {
    static constexpr int kRegisters = 2, kStarts = 4, kScaleZero = 0;
    struct Codes {
        B32 block[4];
    };

    static constexpr int scale_of(int i, int l) { return 4 * i + l; }
    static constexpr int factor(int, int) { return 1; }
    static INLINE void arrange(const int8_t *q, int8_t *to) { std::memcpy(to, q, 256); }
    static INLINE Codes codes(const uint8_t *g, int i) {
        return {D::codes(g, 4 * i), D::codes(g, 4 * i + 1), D::codes(g, 4 * i + 2),
                D::codes(g, 4 * i + 3)};
    }
    static INLINE I sums(const Start *start, const Codes &codes, const int8_t *q, int i) {
        const B32 *b = codes.block;
        q += 128 * i, start += 4 * i;
        const I dots[4] = {dot_from(start[0], b[0], q), dot_from(start[1], b[1], q + 32),
                           dot_from(start[2], b[2], q + 64), dot_from(start[3], b[3], q + 96)};
        return sums_of_four(dots);
    }
};

INLINE uint8x16_t eight_bytes(uint64_t bytes) {
    return vcombine_u8(vcreate_u8(bytes), vcreate_u8(0));
}

template <class D> struct KQuantScales : BlocksInOrder<D> {
    static INLINE uint8x16_t scales(const uint8_t *g) { return eight_bytes(D::scale_bytes(g)); }
    static INLINE uint8x16_t mins(const uint8_t *g) { return eight_bytes(D::min_bytes(g)); }
    static INLINE float d(const uint8_t *g) { return half_to_float(g); }
    static INLINE float dmin(const uint8_t *g) { return half_to_float(g + 2); }
};
template <> struct ByteScales<DecodeQ4_K> : KQuantScales<DecodeQ4_K> {};
template <> struct ByteScales<DecodeQ5_K> : KQuantScales<DecodeQ5_K> {};

template <> struct ByteScales<DecodeIQ4_XS> : BlocksInOrder<DecodeIQ4_XS> {
    static constexpr int kScaleZero = 32;

    static INLINE uint8x16_t scales(const uint8_t *g) {
        return eight_bytes(DecodeIQ4_XS::scale_bytes(g));
    }
    static INLINE float d(const uint8_t *g) { return half_to_float(g); }
};

// A half of 128 codes lies in 32 bytes, block k of its four in bits 2k and 2k + 1. Codes of blocks
// 1 and 2 stay there, so that taking one apart is one operation: they are 4 and 16 times as large.
constexpr int factor_of_field(int k) { return k == 1 ? 4 : k == 2 ? 16 : 1; }
template <int kTop> INLINE uint8x16_t field_in_place(uint8x16_t v, int k) {
    return k == 3 ? vshrq_n_u8(v, kTop) : vandq_u8(v, vdupq_n_u8(uint8_t(3 << 2 * k)));
}

// Register k has block k of both halves. ld4 gives every register a word of each of the four
// sixteen bytes, so that a lane adds up sixteen codes that share a scale, and no sum crosses lanes:
//
//   lane       0                  1                   2                 3
//   word[r]    half 0, bytes 4r   half 0, 16 + 4r     half 1, 4r        half 1, 16 + 4r
template <> struct ByteScales<DecodeQ2_K> {
    static constexpr int kRegisters = 4, kStarts = 1, kScaleZero = 0;
    struct Codes {
        uint8x16_t word[4];
    };

    static constexpr int scale_of(int k, int l) { return l / 2 * 8 + 2 * k + l % 2; }
    static constexpr int factor(int k, int) { return factor_of_field(k); }
    static INLINE void arrange(const int8_t *q, int8_t *to) {
        for (int k = 0; k < 4; ++k)
            for (int r = 0; r < 4; ++r)
                for (int l = 0; l < 4; ++l)
                    std::memcpy(to + 64 * k + 16 * r + 4 * l, q + 16 * scale_of(k, l) + 4 * r, 4);
    }
    static INLINE Codes codes(const uint8_t *g, int k) {
        const uint32x4x4_t words = vld4q_u32(reinterpret_cast<const uint32_t *>(g + 16));
        Codes made;
        for (int r = 0; r < 4; ++r)
            made.word[r] = field_in_place<6>(vreinterpretq_u8_u32(words.val[r]), k);
        return made;
    }
    static INLINE I sums(const Start *start, const Codes &codes, const int8_t *q, int k) {
        I sum = (I)load_again(start + k);
        for (int r = 0; r < 4; ++r) sum = dot4(sum, codes.word[r], vld1q_s8(q + 64 * k + 16 * r));
        return sum;
    }
    static INLINE uint8x16_t scales(const uint8_t *g) {
        return vandq_u8(vld1q_u8(g), vdupq_n_u8(15));
    }
    static INLINE uint8x16_t mins(const uint8_t *g) { return vshrq_n_u8(vld1q_u8(g), 4); }
    static INLINE float d(const uint8_t *g) { return half_to_float(g + 80); }
    static INLINE float dmin(const uint8_t *g) { return half_to_float(g + 82); }
};

// Register i has sixteen codes of each block of half i / 2. A lookup brings the four upper bits of
// such codes to where they are wanted: above bits 0-1, 2-3 and 4-5, and to bit 7.
template <> struct ByteScales<DecodeQ3_K> {
    static constexpr int kRegisters = 4, kStarts = 4, kScaleZero = 32;
    struct Codes {
        uint8x16_t block[4];
    };

    static constexpr int scale_of(int i, int l) { return i / 2 * 8 + 2 * l + i % 2; }
    static constexpr int factor(int, int l) { return factor_of_field(l); }
    static INLINE void arrange(const int8_t *q, int8_t *to) { std::memcpy(to, q, 256); }
    static INLINE Codes codes(const uint8_t *g, int i) {
        alignas(16) static constexpr uint8_t kUpper[16] = {0x00, 0x04, 0x10, 0x14, 0x40, 0x44,
                                                           0x50, 0x54, 0x80, 0x84, 0x90, 0x94,
                                                           0xc0, 0xc4, 0xd0, 0xd4};
        alignas(16) static constexpr uint32_t kEven[4] = {0x33333333, 0x33333333, 0x33333333,
                                                          0x33333333},
                                              kSecond[4] = {0x0c0c0c0c, 0x0c0c0c0c, 0x0c0c0c0c,
                                                            0x0c0c0c0c};
        const uint8x16_t both = vld1q_u8(g + i % 2 * 16), pairs = vld1q_u8(g + 32 + 16 * i);
        const uint8x16_t four = i < 2 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4);
        const uint8x16_t upper = vqtbl1q_u8(vld1q_u8(kUpper), four);
        const uint8x16_t even = vbslq_u8(load_again<uint8x16_t>(kEven), pairs, upper),
                         second = vbslq_u8(load_again<uint8x16_t>(kSecond), pairs, upper);
        return {{vandq_u8(even, vdupq_n_u8(0x07)), vandq_u8(second, vdupq_n_u8(0x1c)),
                 vandq_u8(even, vdupq_n_u8(0x70)), vshrq_n_u8(vsriq_n_u8(upper, pairs, 1), 5)}};
    }
    static INLINE I sums(const Start *start, const Codes &codes, const int8_t *q, int i) {
        const uint8x16_t *b = codes.block;
        q += i / 2 * 128 + i % 2 * 16, start += 4 * i;
        const I dots[4] = {dot_from(start[0], b[0], q), dot_from(start[1], b[1], q + 32),
                           dot_from(start[2], b[2], q + 64), dot_from(start[3], b[3], q + 96)};
        return sums_of_four(dots);
    }
    static INLINE uint8x16_t scales(const uint8_t *g) {
        const U64x2 bytes = DecodeQ3_K::scale_bytes(g);
        return vcombine_u8(vcreate_u8(bytes.low), vcreate_u8(bytes.high));
    }
    static INLINE float d(const uint8_t *g) { return half_to_float(g + 108); }
};

}  // namespace
