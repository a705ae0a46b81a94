// x [M, K] times weights [N, K] transposed -> [M, N]; sums in fp32, memory in fp32 or bf16.
// Each element is the sum over k = 0..K-1 in one order, for any M, N and number of threads: number by number, or, for
// bf16 where the processor multiplies pairs, pair by pair.
#include "stages.h"

#define PANEL (2 * LANES)  // columns computed together
#define ACROSS (PANEL / WIDTH)
// Rows computed together.
#if WIDTH == 16
#define BLOCK 14  // 28 sums, 2 weights and a factor fit in the 32 registers
#else
#define BLOCK 3  // 12 sums and 4 weights fit in 16 registers of 8 numbers
#endif
#if defined __AVX512BF16__ && WIDTH == 16
#define PAIRS 1  // bf16: one instruction adds the products of two numbers to a sum
#else
#define PAIRS 0
#endif
#define CACHED (1 << 20)  // bytes of x in fp32 that are processed at once: they stay in the L2 cache
#define SOON 8            // L2 prefetch distance of weights, in steps; twice that for rows
#define AHEAD 48          // memory prefetch distance for a single block, in steps

// The product of one interleaved block of rows and one panel of weights.
typedef struct {
    void *out;          // [rows][columns], `stride` elements apart
    const void *rows;   // [steps][BLOCK]; fp32, twice as many for a bf16 panel, or bf16 pairs
    const void *panel;  // [steps][PANEL]; fp32, or bf16 pairs: words with number 2s of a column in the low half
    float *room;        // [2 steps][PANEL]: space for a bf16 panel converted to fp32
    const char *next;   // what to prefetch from memory, `stride_next` bytes per step
    int64_t stride_next, steps, stride;
    int half_out, columns;
} Tile;

INLINE void add_products(lanes (*sums)[ACROSS], const float *factors, const lanes *weights, const int rows) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < ACROSS; c++) sums[r][c] += factors[r] * weights[c];
}

// One step of a bf16 panel. If `unpacked` is not NULL, it receives the weights in fp32: with AVX-512 this saves the
// following blocks two of 30 operations.
INLINE void add_pairs(lanes (*sums)[ACROSS], const void *factors, const words *pairs, const int rows, float *unpacked) {
#if PAIRS
    for (int r = 0; r < rows; r++) {
        const __m512bh factor = (__m512bh)_mm512_set1_epi32(((const int32_t *)factors)[r]);
        for (int c = 0; c < ACROSS; c++)
            sums[r][c] = (lanes)_mm512_dpbf16_ps((__m512)sums[r][c], (__m512bh)pairs[c], factor);
    }
#else
    for (int i = 0; i < 2; i++) {
        lanes weights[ACROSS];
        for (int c = 0; c < ACROSS; c++) {
            const words first = pairs[c] << 16, second = pairs[c] & 0xffff0000u;
            weights[c] = as_lanes(i ? second : first);
        }
        if (unpacked)
            for (int c = 0; c < ACROSS; c++) put(unpacked, i * PANEL + c * WIDTH, weights[c]);
        add_products(sums, (const float *)factors + i * BLOCK, weights, rows);
    }
#endif
}

INLINE void tile(const Tile *t, const int rows, const int half, float *unpacked) {
    const float *a = t->rows, *panel = t->panel;
    const char *next = t->next;
    const int64_t steps = t->steps, stride_next = t->stride_next, stride = t->stride,
                  step = half && !PAIRS ? 2 * BLOCK : BLOCK;
    lanes sums[BLOCK][ACROSS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < ACROSS; c++) sums[r][c] = (lanes){0};
    for (int64_t s = 0; s < steps; s++) {
        lanes weights[ACROSS];
        for (int c = 0; c < ACROSS; c++) weights[c] = vector(panel, s * PANEL + c * WIDTH);
        __builtin_prefetch(panel + (s + SOON) * PANEL);
        __builtin_prefetch(panel + (s + SOON) * PANEL + LANES);
        __builtin_prefetch(a + (s + 2 * SOON) * step);
        __builtin_prefetch(next + s * stride_next);
        if (half) {
            words pairs[ACROSS];
            for (int c = 0; c < ACROSS; c++) pairs[c] = as_words(weights[c]);
            add_pairs(sums, a + s * step, pairs, rows, unpacked ? unpacked + 2 * s * PANEL : NULL);
        } else add_products(sums, a + s * step, weights, rows);
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < ACROSS; c++) {
            const int left = t->columns - c * WIDTH;
            if (left >= WIDTH) store(t->out, r * stride + c * WIDTH, sums[r][c], WIDTH, t->half_out);
            else if (left > 0) store(t->out, r * stride + c * WIDTH, sums[r][c], left, t->half_out);
        }
}

// The compiler keeps the sums in registers only if their number is a constant.
#define ROWS(R) \
    case R: tile(t, R, half, unpacked); break;
#define TILES(NAME, HALF, UNPACKED) \
    static __attribute__((noinline)) void NAME(const Tile *t, int rows) { \
        const int half = HALF; \
        float *const unpacked = UNPACKED; \
        switch (rows) { ALL_ROWS } \
    }
#if BLOCK == 14
#define ALL_ROWS \
    ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12) ROWS(13) ROWS(14)
#else
#define ALL_ROWS ROWS(1) ROWS(2) ROWS(3)
#endif
TILES(tile_full, 0, NULL)
TILES(tile_half, 1, NULL)
TILES(tile_half_first, 1, t->room)

#if PAIRS
// Pairs of bf16 numbers of `rows` rows, interleaved: to [ceil(K / 2)][BLOCK], the last one filled up with 0 if K is
// odd.
static void interleave_pairs(float *to, const uint16_t *x, int64_t first, int64_t rows, int64_t K) {
    for (int64_t k = 0; k < K; k += 2)
        for (int64_t r = 0; r < rows; r++) {
            const uint16_t *from = x + (first + r) * K + k, pair[2] = {from[0], k + 1 < K ? from[1] : 0};
            memcpy(&to[k / 2 * BLOCK + r], pair, 4);
        }
}
#endif

// Interleaves `rows` rows of x as fp32 numbers: to [K][BLOCK], plus some padding that is overwritten, and for bf16 a
// step of zeros if K is odd.
static void interleave(float *to, const void *x, int64_t first, int64_t rows, int64_t K, int half) {
#if PAIRS
    if (half && K % 2) return interleave_pairs(to, x, first, rows, K);
    if (half) K /= 2, half = 0;  // pairs move like numbers
#endif
    int64_t k = 0;
    for (; BLOCK > WIDTH / 2 && k + WIDTH <= K; k += WIDTH) {
        lanes v[WIDTH] = {0};
        for (int r = 0; r < rows; r++)
            v[r] = half ? load(x, (first + r) * K + k, WIDTH, 1) : load(x, (first + r) * K + k, WIDTH, 0);
        transpose(v);
        for (int i = 0; i < WIDTH; i++) put(to, (k + i) * BLOCK, v[i]);  // the next iteration overwrites the excess
    }
    for (; k < K; k++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (first + r) * K + k;
            const uint32_t bits = half ? (uint32_t)((const uint16_t *)x)[at] << 16 : ((const uint32_t *)x)[at];
            memcpy(&to[k * BLOCK + r], &bits, 4);
        }
    if (half && K % 2) memset(to + K * BLOCK, 0, sizeof(float) * BLOCK);
}

// The number of parts, of about the same height, in which x is processed.
static int64_t parts_of(int64_t M, int64_t K) {
    const int64_t most = CACHED / (4 * K) < 4 * BLOCK ? 4 * BLOCK : CACHED / (4 * K);
    return (M + most - 1) / most;
}

// Numbers of a block of interleaved rows, and of a panel converted to fp32. bf16 fills an odd K up.
static int64_t block_size(int64_t K) { return (K + 1) * BLOCK + LANES; }
static int64_t panel_size(int64_t K) { return (K + 1) * PANEL; }

int64_t multiply_work(int64_t M, int64_t K, int threads) {
    return M ? threads * panel_size(K) + block_size(K) * ((M / parts_of(M, K)) / BLOCK + 2) : 0;
}

void multiply(void *out, const void *x, const void *weights, float *work, int64_t M, int64_t N, int64_t K, int half) {
    const int64_t steps = half ? (K + 1) / 2 : K, panels = (N + PANEL - 1) / PANEL, panel_bytes = steps * PANEL * 4;
    const int64_t parts = parts_of(M, K), size = half ? 2 : 4;
    int me = 0, all = 1;
#ifdef _OPENMP
    me = omp_get_thread_num(), all = omp_get_num_threads();
#endif
    float *room = work + me * panel_size(K), *blocked = work + all * panel_size(K);
    for (int64_t part = 0; part < parts; part++) {
        // Blocks have about the same height, too: a small one would read all the weights for a few rows.
        const int64_t start = M * part / parts, rows = M * (part + 1) / parts - start,
                      blocks = (rows + BLOCK - 1) / BLOCK;
        const int unpacks = half && !PAIRS && blocks > 2;
        for (int64_t b = blocks * me / all; b < blocks * (me + 1) / all; b++) {
            const int64_t first = rows * b / blocks;
            interleave(blocked + b * block_size(K), x, start + first, rows * (b + 1) / blocks - first, K, half);
        }
#pragma omp barrier
        for (int64_t p = panels * me / all; p < panels * (me + 1) / all; p++) {
            const char *panel = (const char *)weights + p * panel_bytes;
            const int64_t left = N - p * PANEL;
            for (int64_t b = 0; b < blocks; b++) {
                const int64_t first = rows * b / blocks;
                const int again = unpacks && b;
                // The next panel is prefetched from memory evenly over all blocks of this one, not during its own first
                // block.
                const Tile t = {
                    .out = (char *)out + ((start + first) * N + p * PANEL) * size,
                    .rows = blocked + b * block_size(K),
                    .panel = again ? (const void *)room : panel,
                    .room = room,
                    .next = panel + (blocks == 1 ? AHEAD * PANEL * 4 : panel_bytes * (blocks + b) / blocks),
                    .stride_next = (PANEL * 4 + blocks - 1) / blocks,
                    .steps = again ? 2 * steps : steps,
                    .stride = N,
                    .half_out = half,
                    .columns = left < PANEL ? (int)left : PANEL,
                };
                (!half || again ? tile_full : unpacks ? tile_half_first : tile_half)(
                    &t, (int)(rows * (b + 1) / blocks - first));
            }
        }
#pragma omp barrier
    }
}

// Returns 0, or 1 if out of memory.
CALL int linear(void *out, const void *x, const void *weights, int64_t M, int64_t N, int64_t K, int half, int threads) {
    float *work = scratch(sizeof(float) * multiply_work(M, K, threads));
    if (!work && M) return 1;
#pragma omp parallel num_threads(threads)
    multiply(out, x, weights, work, M, N, K, half);
    return 0;
}
