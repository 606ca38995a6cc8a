// GEMV of super-blocks whose scales (and minima) are bytes, 8 or 16 of them to two binary16
// factors. Widening a byte to float32, multiplying it with the row's factor and with the
// activations' scale takes as many operations as eight codes. Here a table lookup puts a byte u
// into bits 16 to 23 of the float 0.5, which is then 0.5 + u / 256, and one multiply-add makes the
// rest:
//
//   (u - zero) * d  =  (0.5 + u / 256) * (256 d) - (128 + zero) * d
//
// with 256 d and (128 + zero) d made once per token. The row's factors are multiplied with the sums
// of the group.
#pragma once

namespace {

// Traits of a format's super-blocks (the definitions below):
//
//   kRegisters            of four sums each
//   scale_of(i, l)        the number of the scale that lane l of register i takes
//   factor(i, l)          what its codes are multiplied by, as they are not shifted to bit 0
//   kScaleZero            the byte that stands for the scale 0
//   scales(g), mins(g)    the bytes, by number
//   d(g), dmin(g)         their factors
//   Arranged(q)           the activations in the order in which sums() reads them
//   codes(g, i)           what register i takes, once for all tokens
//   sums(start, codes, q, i)  register i, begun at kDotStart less the zero point's share
template <class D> struct ByteScales;
template <class D>
concept HasByteScales = requires { ByteScales<D>::kRegisters; };

// Of one group and token.
template <class D> struct GroupInput {
    typedef ByteScales<D> S;
    static constexpr int n = S::kRegisters;

    typename S::Arranged q;
    typename S::Start start[n];
    float d[n][4], zero[n][4];   // 256 d and -(128 + zero) d
    float sum[n][4], no_sum[4];  // of activations, times 256 d; and times -128 d, of all registers

    explicit INLINE GroupInput(const Token &x, int64_t block) : q(x.q + 32 * block) {
        std::memset(no_sum, 0, sizeof no_sum);
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < 4; ++l) {
                const int at = S::scale_of(i, l), factor = S::factor(i, l);
                const float own = x.d[block + (D::kHalves ? at / 2 : at)];
                const int32_t codes = D::kHalves ? x.sum16[2 * block + at] : x.sum32[block + at];
                start[i].set(l, kDotStart - kBias<D> * factor * codes);
                d[i][l] = 256 * own / float(factor);
                zero[i][l] = -(128 + S::kScaleZero) * own / float(factor);
                sum[i][l] = 256 * own * float(codes);
                no_sum[l] -= 0.5f * sum[i][l];  // exact, and so the same fused or not
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

// a + b * c, rounded once: the compiler's choice could differ from one number of tokens to another.
INLINE F multiply_add(F a, F b, F c) {
    return (F)vfmaq_f32((float32x4_t)a, (float32x4_t)b, (float32x4_t)c);
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
        F group[T];
#pragma GCC unroll 4
        for (int i = 0; i < S::kRegisters; ++i) {
            const F scale = half_and_bytes<D>(scales, i);
            const auto codes = S::codes(g, i);
            for (int t = 0; t < T; ++t) {
                const Input &x = q[t].at[0];
                const F zero = (F)load_again<float32x4_t>(x.zero[i]);
                const F product = multiply_add(zero, scale, load<F>(x.d[i]));
                const F sums = started(S::sums(x.start, codes, x.q, i));
                group[t] = i ? multiply_add(group[t], sums, product) : sums * product;
            }
        }
        for (int t = 0; t < T; ++t) dot[t] = multiply_add(dot[t], group[t], broadcast(S::d(g)));
        if constexpr (D::kHasMin) {
            const uint8x16_t mins = S::mins(g);
            F minimum[T];
            for (int t = 0; t < T; ++t) minimum[t] = (F)load_again<float32x4_t>(q[t].at[0].no_sum);
#pragma GCC unroll 4
            for (int i = 0; i < S::kRegisters; ++i) {
                const F each = half_and_bytes<D>(mins, i);
                for (int t = 0; t < T; ++t)
                    minimum[t] = multiply_add(minimum[t], each, load<F>(q[t].at[0].sum[i]));
            }
            const float32x4_t factor = vdupq_n_f32(S::dmin(g));
            for (int t = 0; t < T; ++t)
                dot[t] = (F)vfmsq_f32((float32x4_t)dot[t], (float32x4_t)minimum[t], factor);
        }
    }
};

// Four blocks of 32 in their order, a lane each.
template <class D> struct BlocksInOrder {
    static constexpr int kRegisters = 2, kScaleZero = 0;
    typedef Starts Start;
    typedef const int8_t *Arranged;
    struct Codes {
        B32 block[4];
    };

    static constexpr int scale_of(int i, int l) { return 4 * i + l; }
    static constexpr int factor(int, int) { return 1; }
    static INLINE Codes codes(const uint8_t *g, int i) {
        return {D::codes(g, 4 * i), D::codes(g, 4 * i + 1), D::codes(g, 4 * i + 2),
                D::codes(g, 4 * i + 3)};
    }
    static INLINE I sums(const Start *start, const Codes &codes, const int8_t *q, int i) {
        return four_sums<D::kSigned, 32>(start[i], codes.block, q + 128 * i);
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
INLINE uint8x16_t field_in_place(uint8x16_t v, int k) {
    return k == 3 ? vshrq_n_u8(v, 6) : vandq_u8(v, vdupq_n_u8(uint8_t(3 << 2 * k)));
}

// Register k has block k of both halves. ld4 gives every register a word of each of the four
// sixteen bytes, so that a lane adds up sixteen codes that share a scale, and no sum crosses lanes:
//
//   lane       0                  1                   2                 3
//   word[r]    half 0, bytes 4r   half 0, 16 + 4r     half 1, 4r        half 1, 16 + 4r
template <> struct ByteScales<DecodeQ2_K> {
    static constexpr int kRegisters = 4, kScaleZero = 0;
    typedef StartsOfLanes Start;
    struct Codes {
        uint8x16_t word[4];
    };

    static constexpr int scale_of(int k, int l) { return l / 2 * 8 + 2 * k + l % 2; }
    static constexpr int factor(int k, int) { return factor_of_field(k); }
    struct Arranged {
        alignas(16) int8_t at[256];

        Arranged() = default;
        explicit INLINE Arranged(const int8_t *q) {
            for (int k = 0; k < 4; ++k)
                for (int r = 0; r < 4; ++r)
                    for (int l = 0; l < 4; ++l)
                        std::memcpy(at + 64 * k + 16 * r + 4 * l, q + 16 * scale_of(k, l) + 4 * r,
                                    4);
        }
        INLINE operator const int8_t *() const { return at; }
    };
    static INLINE Codes codes(const uint8_t *g, int k) {
        const uint32x4x4_t words = vld4q_u32(reinterpret_cast<const uint32_t *>(g + 16));
        Codes made;
        for (int r = 0; r < 4; ++r)
            made.word[r] = field_in_place(vreinterpretq_u8_u32(words.val[r]), k);
        return made;
    }
    static INLINE I sums(const Start *start, const Codes &codes, const int8_t *q, int k) {
        return sums_of_lanes(start[k], codes.word, q + 64 * k);
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
    static constexpr int kRegisters = 4, kScaleZero = 32;
    typedef Starts Start;
    typedef const int8_t *Arranged;
    struct Codes {
        uint8x16_t block[4];
    };

    static constexpr int scale_of(int i, int l) { return i / 2 * 8 + 2 * l + i % 2; }
    static constexpr int factor(int, int l) { return factor_of_field(l); }
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
        return four_sums<32>(start[i], codes.block, q + i / 2 * 128 + i % 2 * 16);
    }
    static INLINE uint8x16_t scales(const uint8_t *g) {
        const U64x2 bytes = DecodeQ3_K::scale_bytes(g);
        return vcombine_u8(vcreate_u8(bytes.low), vcreate_u8(bytes.high));
    }
    static INLINE float d(const uint8_t *g) { return half_to_float(g + 108); }
};

}  // namespace
