// The parts of an attention over paged keys and values: blocks of rows that begin with the same pages go through those together.
// A score, a weight and a mixed value are the same sequence of operations in a block and alone.
#pragma once
#include "stages.h"

#define TOGETHER 4     // most rows of a block
#define MOST_PARTS 16  // vectors of a head, at most

// The sums of 16 vectors' elements, by halves as `sum_of` adds them.
INLINE lanes sums_of(lanes *v) {
#define FOLD(W) \
    for (int i = 0; i < W; i++) v[i] = EVEN_PIECES(v[i], v[i + W], W) + ODD_PIECES(v[i], v[i + W], W);
    FOLD(8) FOLD(4) FOLD(2) FOLD(1)
    return v[0];
}

// What a walk over the pages of a line asks memory for: those that lie `ahead` of the one in hand, and when the line's `last` are through,
// the first `count` of those of `pool` that `pages` names.
typedef struct {
    int64_t ahead, last;
    const void *pool;
    const int64_t *pages;
    int64_t count;
} Wanted;

// Ask for the part of `dim` numbers that lies ahead of page `at`.
INLINE void ask(const void *pool, const int64_t *pages, int64_t at, const Wanted wanted, int64_t size, const int dim, const int half) {
    at += wanted.ahead;
    if (at >= wanted.last) {
        at -= wanted.last, pool = wanted.pool, pages = wanted.pages;
        if (at >= wanted.count) return;
    }
    const char *from = (const char *)pool + pages[at] * size * (half ? 2 : 4);
    for (int byte = 0; byte < dim * (half ? 2 : 4); byte += 64) __builtin_prefetch(from + byte);
}

// Scores of `rows` queries [rows][dim] (fp32) with the keys in pages[start .. stop); `scores` has a line of `width` a row. They are
// written by whole vectors: up to 15 behind `stop` hold anything.
INLINE void score(float *scores, int64_t width, const float *queries, const void *keys, const int64_t *pages, int64_t start,
                  int64_t stop, const Wanted wanted, int64_t size, const int dim, const int rows, const int half) {
    const int parts = dim / LANES;
    for (int64_t j = start; j < stop; j += LANES) {
        lanes products[TOGETHER][LANES];
        for (int i = 0; i < LANES; i++) {
            const int64_t here = j + i < stop ? j + i : stop - 1;
            ask(keys, pages, here, wanted, size, dim, half);
            lanes sums[TOGETHER];
            for (int r = 0; r < rows; r++) sums[r] = (lanes){0};
            for (int p = 0; p < parts; p++) {
                const lanes key = load(keys, pages[here] * size + p * LANES, half);
                for (int r = 0; r < rows; r++) sums[r] += load(queries, r * dim + p * LANES, 0) * key;
            }
            for (int r = 0; r < rows; r++) products[r][i] = sums[r];
        }
        for (int r = 0; r < rows; r++) store(scores, r * width + j, sums_of(products[r]), 0);
    }
}

// Scores of one row -> weights that sum to 1; those behind `context` become 0.
INLINE void weigh(float *scores, int64_t context) {
    lanes highest = {0}, total = {0};
    highest -= 3.0e38f;
    for (int64_t j = context; j % LANES; j++) scores[j] = -3.0e38f;
    for (int64_t j = 0; j < context; j += LANES) highest = greater(highest, load(scores, j, 0));
    float top = highest[0];
    for (int i = 1; i < LANES; i++) top = highest[i] > top ? highest[i] : top;
    for (int64_t j = 0; j < context; j += LANES) store(scores, j, exponential(load(scores, j, 0) - top), 0);
    for (int64_t j = context; j % LANES; j++) scores[j] = 0;
    for (int64_t j = 0; j < context; j += LANES) total += load(scores, j, 0);
    const float scale = 1.0f / sum_of(total);
    for (int64_t j = 0; j < context; j += LANES) store(scores, j, load(scores, j, 0) * scale, 0);
}

// mixed [rows][dim / LANES] += weights of the pages[start .. stop) times their values.
INLINE void mix(lanes *mixed, const float *weights, int64_t width, const void *values, const int64_t *pages, int64_t start,
                int64_t stop, const Wanted wanted, int64_t size, const int dim, const int rows, const int half) {
    const int parts = dim / LANES;
    lanes sums[TOGETHER * MOST_PARTS];  // of its own, so that they stay in registers
    for (int i = 0; i < rows * parts; i++) sums[i] = mixed[i];
    for (int64_t j = start; j < stop; j++) {
        ask(values, pages, j, wanted, size, dim, half);
        for (int p = 0; p < parts; p++) {
            const lanes value = load(values, pages[j] * size + p * LANES, half);
            for (int r = 0; r < rows; r++) sums[r * parts + p] += weights[r * width + j] * value;
        }
    }
    for (int i = 0; i < rows * parts; i++) mixed[i] = sums[i];
}
