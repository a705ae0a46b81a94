// x [M, K] times weights [N, K] transposed -> [M, N]; products and sums in fp32, memory in fp32 or bf16.
// Each element is the sum over k = 0..K-1 in order, for any M, N and number of threads.
#include "stages.h"

#define PANEL (2 * LANES)  // columns computed together
#define ACROSS (PANEL / WIDTH)
// Rows computed together.
#if WIDTH == 16
#define BLOCK 14  // 28 sums, 2 weights and a factor fit in the 32 registers
#else
#define BLOCK 3  // 12 sums and 4 weights fit in 16 registers of 8 numbers
#endif
#define CACHED (1 << 20)  // bytes of x in fp32 that are processed at once: they stay in the L2 cache
#define SOON 8            // L2 prefetch distance of weights, in steps of k; twice that for rows
#define AHEAD 48          // memory prefetch distance for a single block, in steps of k

// The product of one interleaved block of rows and one panel of weights.
typedef struct {
    void *out;          // [rows][columns], `stride` elements apart
    const float *rows;  // [K][BLOCK]
    const void *panel;  // fp32 [K][PANEL]; bf16 [K][LANES] words: column c in the low half, c + LANES in the high half
    float *room;        // [K][PANEL]: space for a bf16 panel converted to fp32
    const char *next;   // what to prefetch from memory, `step` bytes per step of k
    int64_t step, K, stride;
    int half_out, columns;
} Tile;

// If `unpacked` is not NULL, it receives the panel in fp32: with AVX-512 this saves the following blocks two of 30
// operations.
INLINE void tile(const Tile *t, const int rows, const int half, float *unpacked) {
    const float *a = t->rows;
    const void *panel = t->panel, *next = t->next;
    const int64_t K = t->K, step = t->step, stride = t->stride;
    lanes sums[BLOCK][ACROSS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < ACROSS; c++) sums[r][c] = (lanes){0};
    for (int64_t k = 0; k < K; k++) {
        lanes weights[ACROSS];
        if (half) {
            for (int c = 0; c < ACROSS / 2; c++) {
                const words both = *(const words *)((const uint32_t *)panel + k * LANES + c * WIDTH);
                weights[c] = as_lanes(both << 16), weights[ACROSS / 2 + c] = as_lanes(both & 0xffff0000u);
            }
            __builtin_prefetch((const uint32_t *)panel + (k + SOON) * LANES);
            if (unpacked)
                for (int c = 0; c < ACROSS; c++) put(unpacked, k * PANEL + c * WIDTH, weights[c]);
        } else {
            for (int c = 0; c < ACROSS; c++) weights[c] = vector(panel, k * PANEL + c * WIDTH);
            __builtin_prefetch((const float *)panel + (k + SOON) * PANEL);
            __builtin_prefetch((const float *)panel + (k + SOON) * PANEL + LANES);
        }
        __builtin_prefetch(a + (k + 2 * SOON) * BLOCK);
        __builtin_prefetch((const char *)next + k * step);
        for (int r = 0; r < rows; r++) {
            const float factor = a[k * BLOCK + r];
            for (int c = 0; c < ACROSS; c++) sums[r][c] += factor * weights[c];
        }
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

// Converts `rows` rows of x to fp32 and interleaves them: to [K][BLOCK], plus some padding that is overwritten.
static void interleave(float *to, const void *x, int64_t first, int64_t rows, int64_t K, int half) {
    int64_t k = 0;
    for (; BLOCK > WIDTH / 2 && k + WIDTH <= K; k += WIDTH) {
        lanes v[WIDTH] = {0};
        for (int r = 0; r < rows; r++) v[r] = half ? load(x, (first + r) * K + k, WIDTH, 1) : load(x, (first + r) * K + k, WIDTH, 0);
        transpose(v);
        for (int i = 0; i < WIDTH; i++) put(to, (k + i) * BLOCK, v[i]);  // the next iteration overwrites the excess
    }
    for (; k < K; k++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (first + r) * K + k;
            const uint32_t bits = half ? (uint32_t)((const uint16_t *)x)[at] << 16 : ((const uint32_t *)x)[at];
            memcpy(&to[k * BLOCK + r], &bits, 4);
        }
}

// The number of parts, of about the same height, in which x is processed.
static int64_t parts_of(int64_t M, int64_t K) {
    const int64_t most = CACHED / (4 * K) < 4 * BLOCK ? 4 * BLOCK : CACHED / (4 * K);
    return (M + most - 1) / most;
}

static int64_t block_size(int64_t K) { return K * BLOCK + LANES; }

int64_t multiply_work(int64_t M, int64_t K, int threads) {
    return M ? threads * K * PANEL + block_size(K) * ((M / parts_of(M, K)) / BLOCK + 2) : 0;
}

void multiply(void *out, const void *x, const void *weights, float *work, int64_t M, int64_t N, int64_t K, int half, int half_rows) {
    const int64_t panels = (N + PANEL - 1) / PANEL, panel_bytes = K * PANEL * (half ? 2 : 4), size = half_rows ? 2 : 4;
    const int64_t parts = parts_of(M, K);
    int me = 0, all = 1;
#ifdef _OPENMP
    me = omp_get_thread_num(), all = omp_get_num_threads();
#endif
    float *room = work + me * K * PANEL, *blocked = work + all * K * PANEL;
    for (int64_t part = 0; part < parts; part++) {
        // Blocks have about the same height, too: a small one would read all the weights for a few rows.
        const int64_t start = M * part / parts, rows = M * (part + 1) / parts - start, blocks = (rows + BLOCK - 1) / BLOCK;
        const int unpacks = half && blocks > 2;
        for (int64_t b = blocks * me / all; b < blocks * (me + 1) / all; b++) {
            const int64_t first = rows * b / blocks;
            interleave(blocked + b * block_size(K), x, start + first, rows * (b + 1) / blocks - first, K, half_rows);
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
                    .next = panel + (blocks == 1 ? AHEAD * panel_bytes / K : panel_bytes * (blocks + b) / blocks),
                    .step = (panel_bytes / K + blocks - 1) / blocks,
                    .K = K,
                    .stride = N,
                    .half_out = half_rows,
                    .columns = left < PANEL ? (int)left : PANEL,
                };
                (!half || again ? tile_full : unpacks ? tile_half_first : tile_half)(&t, (int)(rows * (b + 1) / blocks - first));
            }
        }
#pragma omp barrier
    }
}

// Returns 0, or 1 if out of memory.
CALL int linear(void *out, const void *x, const void *weights, int64_t M, int64_t N, int64_t K, int half, int half_rows,
                int threads) {
    float *work = scratch(sizeof(float) * multiply_work(M, K, threads));
    if (!work && M) return 1;
#pragma omp parallel num_threads(threads)
    multiply(out, x, weights, work, M, N, K, half, half_rows);
    return 0;
}
