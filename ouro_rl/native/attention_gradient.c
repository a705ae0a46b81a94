// The gradients of `attention.c`: of queries row by row, of keys and values by adding up what the rows that read them say. One
// thread has all rows of a key-value head, so the order of the sums does not depend on the number of threads.
#include "paged.h"

#define AHEAD 8  // pages between asking for one and using it

// dk [dim] of each of the pages[start .. stop) += slopes times queries, dv += weights times the gradients of the rows' outputs.
INLINE void spread(float *dk, float *dv, const float *slopes, const float *weights, int64_t width, const float *queries,
                   const float *grads, const int64_t *pages, int64_t start, int64_t stop, int64_t size, const int dim,
                   const int rows) {
    for (int64_t j = start; j < stop; j++)
        for (int d = 0; d < dim; d += LANES) {
            const int64_t at = pages[j] * size + d;
            lanes key = load(dk, at, 0), value = load(dv, at, 0);
            for (int r = 0; r < rows; r++) {
                key += slopes[r * width + j] * load(queries, r * dim + d, 0);
                value += weights[r * width + j] * load(grads, r * dim + d, 0);
            }
            store(dk, at, key, 0), store(dv, at, value, 0);
        }
}

// One head of the rows order[0 .. rows), which share their first `shared` pages. `work` has two lines a row, then room for their queries
// and gradients.
INLINE void head(void *dq, float *dk, float *dv, const void *dout, const void *q, const void *keys, const void *values,
                 const int64_t *table, const int64_t *lines, const int64_t *contexts, const int64_t *order, int64_t shared,
                 int64_t size, int64_t width, int64_t step, int64_t at, const int dim, const int rows, float scaling, float *work,
                 const int half) {
    const int parts = dim / LANES;
    const int64_t room = (width + 2 * LANES - 1) / LANES * LANES;
    float *weights = work, *slopes = work + rows * room, *queries = slopes + rows * room, *grads = queries + rows * dim;
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < dim; d += LANES) {
            store(queries, r * dim + d, load(q, order[r] * step + at + d, half) * scaling, 0);
            store(grads, r * dim + d, load(dout, order[r] * step + at + d, half), 0);
        }
    const int64_t *pages = table + lines[order[0]] * width;
    const Wanted rest = {.ahead = AHEAD, .last = shared};
    score(weights, room, queries, keys, pages, 0, shared, rest, size, dim, rows, half);
    score(slopes, room, grads, values, pages, 0, shared, rest, size, dim, rows, half);
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r], context = contexts[row];
        const int64_t *own = table + lines[row] * width;
        const Wanted wanted = {.ahead = AHEAD, .last = context};
        float *w = weights + r * room, *s = slopes + r * room;
        score(w, room, queries + r * dim, keys, own, shared, context, wanted, size, dim, 1, half);
        score(s, room, grads + r * dim, values, own, shared, context, wanted, size, dim, 1, half);
        weigh(w, context);
        for (int64_t j = context; j % LANES; j++) s[j] = 0;
        lanes mean = {0};
        for (int64_t j = 0; j < context; j += LANES) mean += load(w, j, 0) * load(s, j, 0);
        const float all = sum_of(mean);
        for (int64_t j = 0; j < context; j += LANES) store(s, j, load(w, j, 0) * (load(s, j, 0) - all), 0);
    }
    lanes mixed[TOGETHER * 16];
    for (int i = 0; i < rows * parts; i++) mixed[i] = (lanes){0};
    mix(mixed, slopes, room, keys, pages, 0, shared, rest, size, dim, rows, half);
    spread(dk, dv, slopes, weights, room, queries, grads, pages, 0, shared, size, dim, rows);
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r], *own = table + lines[row] * width;
        const Wanted wanted = {.ahead = AHEAD, .last = contexts[row]};
        mix(mixed + r * parts, slopes + r * room, room, keys, own, shared, contexts[row], wanted, size, dim, 1, half);
        spread(dk, dv, slopes + r * room, weights + r * room, room, queries + r * dim, grads + r * dim, own, shared, contexts[row],
               size, dim, 1);
        for (int p = 0; p < parts; p++) store(dq, row * step + at + p * LANES, mixed[r * parts + p] * scaling, half);
    }
}

#define CASE(D, R) \
    if (dim == D && rows == R) { \
        head(dq, dk, dv, dout, q, keys, values, table, lines, contexts, order, shared, size, width, step, at, D, R, scaling, work, \
             half); \
        return; \
    }
#define HEADS(NAME, HALF) \
    static __attribute__((noinline)) void NAME( \
        void *dq, float *dk, float *dv, const void *dout, const void *q, const void *keys, const void *values, \
        const int64_t *table, const int64_t *lines, const int64_t *contexts, const int64_t *order, int64_t shared, int64_t size, \
        int64_t width, int64_t step, int64_t at, int dim, int rows, float scaling, float *work) { \
        const int half = HALF; \
        CASE(32, 4) CASE(64, 4) CASE(128, 4) \
        head(dq, dk, dv, dout, q, keys, values, table, lines, contexts, order, shared, size, width, step, at, dim, rows, scaling, \
             work, half); \
    }
HEADS(head_full, 0)
HEADS(head_half, 1)

// As `attend`, of which this is the gradient: to call->out that of the queries; dout is like it, dk and dv fp32 [pages, kv heads, dim],
// to be added to.
CALL int attend_gradient(float *dk, float *dv, const void *dout, const Attention *call, int half, int threads) {
    const int dim = call->dim, heads = call->heads, kv_heads = call->kv_heads, share = heads / kv_heads;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int g = 0; g < kv_heads; g++) {
        const int64_t offset = (int64_t)g * dim, bytes = offset * (half ? 2 : 4), *starts = call->starts;
        float *work = scratch(sizeof(float) * TOGETHER * (2 * (call->width + 2 * LANES) + 2 * dim));
        if (!work) {
            failed = 1;
            continue;
        }
        for (int64_t b = 0; b < call->count; b++)
            for (int h = g * share; h < (g + 1) * share; h++)
                (half ? head_half : head_full)(call->out, dk + offset, dv + offset, dout, call->q, (const char *)call->keys + bytes,
                                               (const char *)call->values + bytes, call->table, call->lines, call->contexts,
                                               call->order + starts[b], call->shared[b], (int64_t)kv_heads * dim, call->width,
                                               (int64_t)heads * dim, (int64_t)h * dim, dim, (int)(starts[b + 1] - starts[b]),
                                               call->scaling, work);
    }
    return failed;
}
