// The parts of an attention over paged keys and values: blocks of rows that begin with the same pages go through those together.
// A score, a weight and a mixed value are the same sequence of operations in a block and alone.
#pragma once
#include "stages.h"

#define TOGETHER 4     // most rows of a block
#define MOST_PARTS 16  // vectors of a head, at most

#ifdef __clang__
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, (integers){__VA_ARGS__})
#endif

// The sums of 16 vectors' elements, by halves as `sum_of` adds them.
INLINE lanes sums_of(lanes *v) {
    for (int i = 0; i < 8; i++)
        v[i] = SHUFFLE(v[i], v[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               SHUFFLE(v[i], v[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        v[i] = SHUFFLE(v[i], v[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               SHUFFLE(v[i], v[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        v[i] = SHUFFLE(v[i], v[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               SHUFFLE(v[i], v[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return SHUFFLE(v[0], v[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           SHUFFLE(v[0], v[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

// What is read when the pages of a line are through: the first `count` of these.
typedef struct {
    const void *pool;
    const int64_t *pages;
    int64_t count;
} Next;

// Ask for the part of `dim` numbers of page `at` of a line of `last`, or of what is next.
INLINE void ask(const void *pool, const int64_t *pages, int64_t at, int64_t last, const Next *next, int64_t size, const int dim,
                const int half) {
    if (at >= last) {
        at -= last, pool = next->pool, pages = next->pages;
        if (at >= next->count) return;
    }
    const char *from = (const char *)pool + pages[at] * size * (half ? 2 : 4);
    for (int byte = 0; byte < dim * (half ? 2 : 4); byte += 64) __builtin_prefetch(from + byte);
}

// Scores of `rows` queries [rows][dim] (fp32) with the keys in pages[start .. stop) of `last`; `scores` has a line of `width` a row. They
// are written by whole vectors: up to 15 behind `stop` hold anything. Asks for the pages that lie `ahead`.
INLINE void score(float *scores, int64_t width, const float *queries, const void *keys, const int64_t *pages, int64_t start,
                  int64_t stop, const int ahead, int64_t last, const Next *next, int64_t size, const int dim, const int rows,
                  const int half) {
    const int parts = dim / LANES;
    for (int64_t j = start; j < stop; j += LANES) {
        lanes products[TOGETHER][LANES];
        for (int i = 0; i < LANES; i++) {
            const int64_t here = j + i < stop ? j + i : stop - 1;
            ask(keys, pages, here + ahead, last, next, size, dim, half);
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
                int64_t stop, const int ahead, int64_t last, const Next *next, int64_t size, const int dim, const int rows,
                const int half) {
    const int parts = dim / LANES;
    lanes sums[TOGETHER * MOST_PARTS];  // of its own, so that they stay in registers
    for (int i = 0; i < rows * parts; i++) sums[i] = mixed[i];
    for (int64_t j = start; j < stop; j++) {
        ask(values, pages, j + ahead, last, next, size, dim, half);
        for (int p = 0; p < parts; p++) {
            const lanes value = load(values, pages[j] * size + p * LANES, half);
            for (int r = 0; r < rows; r++) sums[r * parts + p] += weights[r * width + j] * value;
        }
    }
    for (int i = 0; i < rows * parts; i++) mixed[i] = sums[i];
}
