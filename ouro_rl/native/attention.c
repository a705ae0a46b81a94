// Row-wise attention over paged keys and values. A row reads the pages that its line of the table names, in that order.
#include "paged.h"

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
        CASE(32, 1) CASE(32, 4) CASE(64, 1) CASE(64, 4) CASE(128, 1) CASE(128, 4) \
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
        if (rows < TOGETHER) rows = 1;  // other sizes would have to be compiled, for little
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
