// The parts of an attention over paged keys and values. Blocks of rows with a shared prefix process its pages together.
// Scores, weights and outputs are computed by the same sequence of operations in a block and alone.
#pragma once
#include "stages.h"

#define TOGETHER 4     // maximum rows per block
// What a pass over a row's pages prefetches: the page that is `ahead` of the current one, and past the row's `last`
// page the first `count` of `pages` in `pool`.
typedef struct {
    int64_t ahead, last;
    const void *pool;
    const int64_t *pages;
    int64_t count;
} Wanted;

// Prefetches `dim` numbers of the page that is ahead of page `at`.
INLINE void ask(const void *pool, const int64_t *pages, int64_t at, const Wanted wanted, int64_t size, const int dim,
                const int half) {
    at += wanted.ahead;
    if (at >= wanted.last) {
        at -= wanted.last, pool = wanted.pool, pages = wanted.pages;
        if (at >= wanted.count) return;
    }
    const char *from = (const char *)pool + pages[at] * size * (half ? 2 : 4);
    for (int byte = 0; byte < dim * (half ? 2 : 4); byte += 64) __builtin_prefetch(from + byte);
}

// The size of a head of `dim` numbers in scratch memory, padded with zeros to full vectors.
INLINE int64_t padded(int64_t dim) { return (dim + LANES - 1) / LANES * LANES; }

// The size of a row of scores, one per page, in full vectors; `score` writes full vectors from any index on.
INLINE int64_t line_of(int64_t width) { return padded(width) + LANES; }

// `to` [padded(dim)] = the head x [dim] from `at` on, times `factor`.
INLINE void fill(float *to, const void *x, int64_t at, float factor, const int dim, const int half) {
    VECTORS(dim, put(to, i, load(x, at + i, n, half) * factor););
}

// Scores of `rows` queries [rows][padded(dim)] with the keys in pages[start .. stop), to `scores` [rows][width]. They
// are written in full vectors: some values past `stop` are arbitrary.
INLINE void score(float *scores, int64_t width, const float *queries, const void *keys, const int64_t *pages,
                  int64_t start, int64_t stop, const Wanted wanted, int64_t size, const int dim, const int rows,
                  const int half) {
    for (int64_t j = start; j < stop; j += WIDTH) {
        lanes products[TOGETHER][WIDTH];
        for (int k = 0; k < WIDTH; k++) {
            const int64_t here = j + k < stop ? j + k : stop - 1;
            ask(keys, pages, here, wanted, size, dim, half);
            lanes sums[TOGETHER][PIECES];
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < PIECES; c++) sums[r][c] = (lanes){0};
            VECTORS(dim, {
                const lanes key = load(keys, pages[here] * size + i, n, half);
                for (int r = 0; r < rows; r++) sums[r][c] += vector(queries, r * padded(dim) + i) * key;
            });
            for (int r = 0; r < rows; r++) products[r][k] = folded(sums[r]);
        }
        for (int r = 0; r < rows; r++) put(scores, r * width + j, sums_of(products[r]));
    }
}

// Sets x[from .. ] to `value` up to a multiple of LANES.
INLINE void pad(float *x, int64_t from, float value) {
    for (int64_t j = from; j % LANES; j++) x[j] = value;
}

// Softmax of one row of scores, in place; weights past `context` become 0.
INLINE void weigh(float *scores, int64_t context) {
    lanes highest = {0}, total[PIECES] = {0};
    highest -= 3.0e38f;
    pad(scores, context, -3.0e38f);
    for (int64_t j = 0; j < context; j += WIDTH) highest = greater(highest, vector(scores, j));
    float top = highest[0];
    for (int i = 1; i < WIDTH; i++) top = highest[i] > top ? highest[i] : top;
    for (int64_t j = 0; j < context; j += WIDTH) put(scores, j, exponential(vector(scores, j) - top));
    pad(scores, context, 0);
    for (int64_t j = 0; j < context; j += LANES)
        for (int c = 0; c < PIECES; c++) total[c] += vector(scores, j + c * WIDTH);
    const float scale = 1.0f / sum_of(total);
    for (int64_t j = 0; j < context; j += WIDTH) put(scores, j, vector(scores, j) * scale);
}

// mixed [rows][padded(dim)] += weights of pages[start .. stop) times their values, as many vectors at a time as fit in
// registers.
INLINE void mix(float *mixed, const float *weights, int64_t width, const void *values, const int64_t *pages,
                int64_t start, int64_t stop, const Wanted wanted, int64_t size, const int dim, const int rows,
                const int half) {
    const int parts = (dim + WIDTH - 1) / WIDTH, most = SUMS / rows;
    for (int first = 0; first < parts; first += most) {
        const int count = parts - first < most ? parts - first : most;
        lanes sums[SUMS];
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < count; p++) sums[r * most + p] = vector(mixed, r * padded(dim) + (first + p) * WIDTH);
        for (int64_t j = start; j < stop; j++) {
            if (!first) ask(values, pages, j, wanted, size, dim, half);
            for (int p = 0; p < count; p++) {
                const int at = (first + p) * WIDTH;
                const lanes value = load(values, pages[j] * size + at, dim - at < WIDTH ? dim - at : WIDTH, half);
                for (int r = 0; r < rows; r++) sums[r * most + p] += weights[r * width + j] * value;
            }
        }
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < count; p++) put(mixed, r * padded(dim) + (first + p) * WIDTH, sums[r * most + p]);
    }
}
