// Row-wise attention over paged keys and values. A row reads the pages that its line of the table names, in that order.
// Rows that begin with the same pages (samples of one prompt, positions of one sequence) go through those together: each page is
// read once for the block. A score, a weight and a mixed value are the same sequence of operations in a block and alone.
#include "lanes.h"

#define TOGETHER 4  // most rows of a block
#define AHEAD 8     // pages between asking for one and using it

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

// Scores of `rows` queries [rows][dim] (fp32) with the keys in pages[start .. stop); `scores` has a line of `width` a row. They are
// written by whole vectors: up to 15 behind `stop` hold anything.
INLINE void score(float *scores, int64_t width, const float *queries, const void *keys, const int64_t *pages, int64_t start,
                  int64_t stop, int64_t size, const int dim, const int rows, const int half) {
    const int parts = dim / LANES, line = half ? 32 : 16;
    for (int64_t j = start; j < stop; j += LANES) {
        lanes products[TOGETHER][LANES];
        for (int i = 0; i < LANES; i++) {
            const int64_t here = j + i < stop ? j + i : stop - 1, later = here + AHEAD < stop ? here + AHEAD : stop - 1;
            for (int d = 0; d < dim; d += line)
                __builtin_prefetch(half ? (const void *)((const uint16_t *)keys + pages[later] * size + d)
                                        : (const void *)((const float *)keys + pages[later] * size + d));
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

// Scores of one row -> weights that sum to 1 before the division by what is returned; those behind `context` become 0.
INLINE float weigh(float *scores, int64_t context) {
    lanes highest = {0}, total = {0};
    highest -= 3.0e38f;
    for (int64_t j = context; j % LANES; j++) scores[j] = -3.0e38f;
    for (int64_t j = 0; j < context; j += LANES) highest = greater(highest, load(scores, j, 0));
    float top = highest[0];
    for (int i = 1; i < LANES; i++) top = highest[i] > top ? highest[i] : top;
    for (int64_t j = 0; j < context; j += LANES) store(scores, j, exponential(load(scores, j, 0) - top), 0);
    for (int64_t j = context; j % LANES; j++) scores[j] = 0;
    for (int64_t j = 0; j < context; j += LANES) total += load(scores, j, 0);
    return sum_of(total);
}

// mixed [rows][dim / LANES] += weights of the pages[start .. stop) times their values.
INLINE void mix(lanes *mixed, const float *weights, int64_t width, const void *values, const int64_t *pages, int64_t start,
                int64_t stop, int64_t size, const int dim, const int rows, const int half) {
    const int parts = dim / LANES, line = half ? 32 : 16;
    for (int64_t j = start; j < stop; j++) {
        const int64_t later = pages[j + AHEAD < stop ? j + AHEAD : stop - 1] * size;
        for (int d = 0; d < dim; d += line)
            __builtin_prefetch(half ? (const void *)((const uint16_t *)values + later + d)
                                    : (const void *)((const float *)values + later + d));
        for (int p = 0; p < parts; p++) {
            const lanes value = load(values, pages[j] * size + p * LANES, half);
            for (int r = 0; r < rows; r++) mixed[r * parts + p] += weights[r * width + j] * value;
        }
    }
}

// One head of the rows order[0 .. rows), which share their first `shared` pages.
INLINE void head(void *out, const void *q, const void *keys, const void *values, const int64_t *table, const int64_t *lines,
                 const int64_t *contexts, const int64_t *order, int64_t shared, int64_t size, int64_t width, int64_t step,
                 int64_t at, const int dim, const int rows, float scaling, float *work, const int half) {
    const int parts = dim / LANES;
    const int64_t room = (width + 2 * LANES - 1) / LANES * LANES;  // `score` writes whole vectors, from anywhere
    float *queries = work + rows * room;
    lanes mixed[TOGETHER * 16];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < parts; p++) {
            store(queries, r * dim + p * LANES, load(q, order[r] * step + at + p * LANES, half) * scaling, 0);
            mixed[r * parts + p] = (lanes){0};
        }
    const int64_t *pages = table + lines[order[0]] * width;
    score(work, room, queries, keys, pages, 0, shared, size, dim, rows, half);
    float totals[TOGETHER];
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r];
        score(work + r * room, room, queries + r * dim, keys, table + lines[row] * width, shared, contexts[row], size, dim, 1, half);
        totals[r] = weigh(work + r * room, contexts[row]);
    }
    mix(mixed, work, room, values, pages, 0, shared, size, dim, rows, half);
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r];
        lanes own[16];
        for (int p = 0; p < parts; p++) own[p] = mixed[r * parts + p];
        mix(own, work + r * room, room, values, table + lines[row] * width, shared, contexts[row], size, dim, 1, half);
        for (int p = 0; p < parts; p++) store(out, row * step + at + p * LANES, own[p] / totals[r], half);
    }
}

#define CASE(D, R) \
    if (dim == D && rows == R) { \
        head(out, q, keys, values, table, lines, contexts, order, shared, size, width, step, at, D, R, scaling, work, half); \
        return; \
    }
#define HEADS(NAME, HALF) \
    static __attribute__((noinline)) void NAME(void *out, const void *q, const void *keys, const void *values, \
                                               const int64_t *table, const int64_t *lines, const int64_t *contexts, \
                                               const int64_t *order, int64_t shared, int64_t size, int64_t width, int64_t step, \
                                               int64_t at, int dim, int rows, float scaling, float *work) { \
        const int half = HALF; \
        /* Usual sizes compile to straight vector code. */ \
        CASE(32, 1) CASE(32, 2) CASE(32, 4) CASE(64, 1) CASE(64, 2) CASE(64, 4) CASE(128, 1) CASE(128, 2) CASE(128, 4) \
        head(out, q, keys, values, table, lines, contexts, order, shared, size, width, step, at, dim, rows, scaling, work, half); \
    }
HEADS(head_full, 0)
HEADS(head_half, 1)

// Blocks of neighbours in `order` [n] that begin with the same pages: the first of each block to starts (and n behind the last), how
// many pages its rows share to `shared`. Returns how many blocks there are.
CALL int64_t blocks(int64_t *starts, int64_t *shared, const int64_t *order, const int64_t *table, const int64_t *lines,
                    const int64_t *contexts, int64_t n, int64_t width) {
    int64_t count = 0;
    for (int64_t i = 0; i < n;) {
        const int64_t *first = table + lines[order[i]] * width;
        int64_t common = contexts[order[i]], rows = 1;
        for (; rows < TOGETHER && i + rows < n; rows++) {
            const int64_t row = order[i + rows], *other = table + lines[row] * width;
            const int64_t most = contexts[row] < common ? contexts[row] : common;
            int64_t same = 0;
            if (other == first) same = most;
            else while (same < most && other[same] == first[same]) same++;
            if (2 * same < common) break;  // what the block has in common would shrink too much
            common = same;
        }
        if (rows == 3) rows = 2;  // three would be one more size to compile
        starts[count] = i, shared[count++] = rows == 1 ? 0 : common;
        i += rows;
    }
    starts[count] = n;
    return count;
}

// Row r = order[i] of q [rows, heads, dim] over pages table[lines[r]][0 .. contexts[r]) of keys and values [pages, kv heads, dim].
// `half`: q, out, keys and values are bf16. Returns 0, or 1 without memory.
CALL int attend(void *out, const void *q, const void *keys, const void *values, const int64_t *table, const int64_t *lines,
                const int64_t *contexts, const int64_t *order, const int64_t *starts, const int64_t *shared, int64_t count,
                int64_t width, int heads, int kv_heads, int dim, float scaling, int half, int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *work = scratch(sizeof(float) * TOGETHER * (width + 2 * LANES + dim));
        if (!work) failed = 1;
        else
#pragma omp for schedule(dynamic, 2)
            for (int64_t b = 0; b < count; b++)
                for (int h = 0; h < heads; h++) {
                    const int64_t offset = (int64_t)(h / (heads / kv_heads)) * dim * (half ? 2 : 4);
                    (half ? head_half : head_full)(out, q, (const char *)keys + offset, (const char *)values + offset, table, lines,
                                                   contexts, order + starts[b], shared[b], (int64_t)kv_heads * dim, width,
                                                   (int64_t)heads * dim, (int64_t)h * dim, dim, (int)(starts[b + 1] - starts[b]),
                                                   scaling, work);
                }
    }
    return failed;
}
