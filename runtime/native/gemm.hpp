// C += A . B in float32, for attention. B is read along its rows, so that no sum crosses lanes.
//
// Tiles of GEMM_ROWS x GEMM_VECTORS registers (AVX-512: 6 x 4): each step of k loads 4 registers of B and broadcasts 6
// numbers of A for 24 multiply-adds, which is what two multiply-add and two load ports balance.
#pragma once

namespace {

constexpr int GEMM_COLUMNS = GEMM_VECTORS * LANES;

template <int R, int V>
INLINE void gemm_tile(int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride) {
    F total[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) total[r][v] = load<F>(c + r * c_stride + v * LANES);
    for (int i = 0; i < k; ++i) {
        F row[V];
        for (int v = 0; v < V; ++v) row[v] = load<F>(b + i * b_stride + v * LANES);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) total[r][v] += a[r * a_stride + i] * row[v];
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store(c + r * c_stride + v * LANES, total[r][v]);
}

template <int V>
void gemm_columns(int m, int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride) {
    int r = 0;
    for (; r + GEMM_ROWS <= m; r += GEMM_ROWS)
        gemm_tile<GEMM_ROWS, V>(k, a + r * a_stride, a_stride, b, b_stride, c + r * c_stride, c_stride);
    for (; r + 2 <= m; r += 2) gemm_tile<2, V>(k, a + r * a_stride, a_stride, b, b_stride, c + r * c_stride, c_stride);
    if (r < m) gemm_tile<1, V>(k, a + r * a_stride, a_stride, b, b_stride, c + r * c_stride, c_stride);
}

// c (m, n) += a (m, k) . b (k, n); n is a multiple of LANES.
void gemm(int m, int n, int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride) {
    int column = 0;
    for (; column + GEMM_COLUMNS <= n; column += GEMM_COLUMNS)
        gemm_columns<GEMM_VECTORS>(m, k, a, a_stride, b + column, b_stride, c + column, c_stride);
    for (; column < n; column += LANES) gemm_columns<1>(m, k, a, a_stride, b + column, b_stride, c + column, c_stride);
}

}  // namespace
