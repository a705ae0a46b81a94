// x [M, K] times weights [N, K] transposed -> [M, N]; products and sums in fp32, memory in fp32 or bf16.
// An element is the sum over k = 0..K-1 in that order, whatever M and N are and however many threads run.
#include "stages.h"

#define PANEL (2 * LANES)  // columns that are computed together
#ifdef __AVX512F__
#define BLOCK 14  // rows that are computed together: 28 sums, 2 weights and a factor fit the 32 registers
#else
#define BLOCK 3
#endif
#define CACHED (1 << 20)  // bytes of x in fp32 that are gone through at once: what stays in the second-level cache
#define AHEAD 8           // steps of k between asking for weights and using them

// One block of rows, a [K][BLOCK], by one panel of weights -> `rows` rows of out, `stride` elements apart.
// A panel in fp32 is [K][PANEL]; in bf16 it is [K][LANES] words, each with column c below and column c + LANES above.
INLINE void tile(void *out, const float *a, const void *panel, int64_t K, int64_t stride, const int rows, const int half,
                 int half_out, int columns) {
    lanes sums[BLOCK][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (lanes){0};
    for (int64_t k = 0; k < K; k++) {
        lanes left, right;
        if (half) {
            const words both = *(const words *)((const uint32_t *)panel + k * LANES);
            __builtin_prefetch((const uint32_t *)panel + (k + AHEAD) * LANES);
            left = as_lanes(both << 16), right = as_lanes(both & 0xffff0000u);
        } else {
            left = load(panel, k * PANEL, 0), right = load(panel, k * PANEL + LANES, 0);
            __builtin_prefetch((const float *)panel + (k + AHEAD) * PANEL);
            __builtin_prefetch((const float *)panel + (k + AHEAD) * PANEL + LANES);
        }
        for (int r = 0; r < rows; r++) {
            const float factor = a[k * BLOCK + r];
            sums[r][0] += factor * left, sums[r][1] += factor * right;
        }
    }
    for (int r = 0; r < rows; r++)
        if (columns == PANEL) {
            store(out, r * stride, sums[r][0], half_out);
            store(out, r * stride + LANES, sums[r][1], half_out);
        } else
            for (int c = 0; c < columns; c++) {
                const lanes sum = sums[r][c / LANES];
                if (half_out) ((uint16_t *)out)[r * stride + c] = rounded(sum)[c % LANES];
                else ((float *)out)[r * stride + c] = sum[c % LANES];
            }
}

// The compiler keeps the sums in registers when it knows how many there are.
#define ROWS(R) \
    case R: tile(out, a, panel, K, stride, R, half, half_out, columns); break;
#define TILES(NAME, HALF) \
    static __attribute__((noinline)) void NAME(void *out, const float *a, const void *panel, int64_t K, int64_t stride, \
                                               int rows, int half_out, int columns) { \
        const int half = HALF; \
        switch (rows) { ALL_ROWS } \
    }
#if BLOCK == 14
#define ALL_ROWS \
    ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12) ROWS(13) ROWS(14)
#else
#define ALL_ROWS ROWS(1) ROWS(2) ROWS(3)
#endif
TILES(tile_half, 1)
TILES(tile_full, 0)

// `rows` rows of x, in fp32 and interleaved: to [K][BLOCK].
static void interleave(float *to, const void *x, int64_t first, int64_t rows, int64_t K, int half) {
    for (int64_t start = 0; start < K; start += 64)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = start; k < K && k < start + 64; k++)
                if (half) {
                    const uint32_t bits = (uint32_t)((const uint16_t *)x)[(first + r) * K + k] << 16;
                    memcpy(&to[k * BLOCK + r], &bits, 4);
                } else
                    to[k * BLOCK + r] = ((const float *)x)[(first + r) * K + k];
}

// Parts of about the same height that x is gone through in.
static int64_t parts_of(int64_t M, int64_t K) {
    const int64_t most = CACHED / (4 * K) < 4 * BLOCK ? 4 * BLOCK : CACHED / (4 * K);
    return (M + most - 1) / most;
}

int64_t multiply_work(int64_t M, int64_t K) {
    return M ? K * BLOCK * ((M / parts_of(M, K)) / BLOCK + 2) : 0;
}

void multiply(void *out, const void *x, const void *weights, float *work, int64_t M, int64_t N, int64_t K, int half, int half_rows) {
    const int64_t panels = (N + PANEL - 1) / PANEL, panel_bytes = K * PANEL * (half ? 2 : 4), size = half_rows ? 2 : 4;
    const int64_t parts = parts_of(M, K);
    int me = 0, all = 1;
#ifdef _OPENMP
    me = omp_get_thread_num(), all = omp_get_num_threads();
#endif
    for (int64_t part = 0; part < parts; part++) {
        // Blocks of about the same height, too: a low one would read all the weights for a few rows.
        const int64_t start = M * part / parts, rows = M * (part + 1) / parts - start, blocks = (rows + BLOCK - 1) / BLOCK;
        for (int64_t b = blocks * me / all; b < blocks * (me + 1) / all; b++) {
            const int64_t first = rows * b / blocks;
            interleave(work + b * K * BLOCK, x, start + first, rows * (b + 1) / blocks - first, K, half_rows);
        }
#pragma omp barrier
        for (int64_t p = panels * me / all; p < panels * (me + 1) / all; p++)
            for (int64_t b = 0; b < blocks; b++) {
                const int64_t first = rows * b / blocks, left = N - p * PANEL;
                (half ? tile_half : tile_full)((char *)out + ((start + first) * N + p * PANEL) * size, work + b * K * BLOCK,
                                               (const char *)weights + p * panel_bytes, K, N,
                                               (int)(rows * (b + 1) / blocks - first), half_rows,
                                               left < PANEL ? (int)left : PANEL);
            }
#pragma omp barrier
    }
}

// Returns 0, or 1 without memory.
CALL int linear(void *out, const void *x, const void *weights, int64_t M, int64_t N, int64_t K, int half, int half_rows,
                int threads) {
    float *work = scratch(sizeof(float) * multiply_work(M, K));
    if (!work && M) return 1;
#pragma omp parallel num_threads(threads)
    multiply(out, x, weights, work, M, N, K, half, half_rows);
    return 0;
}
