// The gradients of `attention.c`: of queries row by row, of keys and values as sums over the rows that read them. One
// thread handles all rows of a KV head, so the order of the sums does not depend on the number of threads.
#include "paged.h"

#define AHEAD 8  // prefetch distance in pages

// dk [dim] of each of the pages[start .. stop) += slopes times queries, dv += weights times the gradients of the rows'
// outputs.
INLINE void spread(float *dk, float *dv, const float *slopes, const float *weights, int64_t width, const float *queries,
                   const float *grads, const int64_t *pages, int64_t start, int64_t stop, int64_t size, const int dim,
                   const int rows) {
    for (int64_t j = start; j < stop; j++)
        VECTORS(dim, {
            const int64_t at = pages[j] * size + i;
            lanes key = load(dk, at, n, 0), value = load(dv, at, n, 0);
            for (int r = 0; r < rows; r++) {
                key += slopes[r * width + j] * vector(queries, r * padded(dim) + i);
                value += weights[r * width + j] * vector(grads, r * padded(dim) + i);
            }
            store(dk, at, key, n, 0), store(dv, at, value, n, 0);
        });
}

// One head of the rows order[0 .. rows), which share their first `shared` pages. `work` holds two score rows per row,
// then the queries, the output gradients and the query gradients.
INLINE void head(void *dq, float *dk, float *dv, const void *dout, const void *q, const void *keys, const void *values,
                 const int64_t *table, const int64_t *table_rows, const int64_t *contexts, const int64_t *order,
                 int64_t shared, int64_t size, int64_t width, int64_t step, int64_t at, const int dim, const int rows,
                 float scaling, float *work, const int half) {
    const int64_t room = line_of(width), one = padded(dim);
    float *weights = work, *slopes = work + rows * room;
    float *queries = slopes + rows * room, *grads = queries + rows * one, *mixed = grads + rows * one;
    for (int r = 0; r < rows; r++) {
        fill(queries + r * one, q, order[r] * step + at, scaling, dim, half);
        fill(grads + r * one, dout, order[r] * step + at, 1, dim, half);
    }
    const int64_t *pages = table + table_rows[order[0]] * width;
    const Wanted rest = {.ahead = AHEAD, .last = shared};
    score(weights, room, queries, keys, pages, 0, shared, rest, size, dim, rows, half);
    score(slopes, room, grads, values, pages, 0, shared, rest, size, dim, rows, half);
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r], context = contexts[row];
        const int64_t *own = table + table_rows[row] * width;
        const Wanted wanted = {.ahead = AHEAD, .last = context};
        float *w = weights + r * room, *s = slopes + r * room;
        score(w, room, queries + r * one, keys, own, shared, context, wanted, size, dim, 1, half);
        score(s, room, grads + r * one, values, own, shared, context, wanted, size, dim, 1, half);
        weigh(w, context);
        pad(s, context, 0);
        lanes mean[PIECES] = {0};
        for (int64_t j = 0; j < context; j += LANES)
            for (int c = 0; c < PIECES; c++) mean[c] += vector(w, j + c * WIDTH) * vector(s, j + c * WIDTH);
        const float all = sum_of(mean);
        for (int64_t j = 0; j < context; j += WIDTH) put(s, j, vector(w, j) * (vector(s, j) - all));
    }
    memset(mixed, 0, sizeof(float) * rows * one);
    mix(mixed, slopes, room, keys, pages, 0, shared, rest, size, dim, rows, half);
    spread(dk, dv, slopes, weights, room, queries, grads, pages, 0, shared, size, dim, rows);
    for (int r = 0; r < rows; r++) {
        const int64_t row = order[r], *own = table + table_rows[row] * width;
        const Wanted wanted = {.ahead = AHEAD, .last = contexts[row]};
        mix(mixed + r * one, slopes + r * room, room, keys, own, shared, contexts[row], wanted, size, dim, 1, half);
        spread(dk, dv, slopes + r * room, weights + r * room, room, queries + r * one, grads + r * one, own, shared,
               contexts[row], size, dim, 1);
        VECTORS(dim, store(dq, row * step + at + i, vector(mixed, r * one + i) * scaling, n, half););
    }
}

#define CASE(D, R) \
    if (dim == D && rows == R) { \
        head(dq, dk, dv, dout, q, keys, values, table, table_rows, contexts, order, shared, size, width, step, at, D, \
             R, scaling, work, half); \
        return; \
    }
#define HEADS(NAME, HALF) \
    static __attribute__((noinline)) void NAME( \
        void *dq, float *dk, float *dv, const void *dout, const void *q, const void *keys, const void *values, \
        const int64_t *table, const int64_t *table_rows, const int64_t *contexts, const int64_t *order, \
        int64_t shared, int64_t size, int64_t width, int64_t step, int64_t at, int dim, int rows, float scaling, \
        float *work) { \
        const int half = HALF; \
        CASE(32, 4) CASE(64, 4) CASE(128, 4) \
        head(dq, dk, dv, dout, q, keys, values, table, table_rows, contexts, order, shared, size, width, step, at, \
             dim, rows, scaling, work, half); \
    }
HEADS(head_full, 0)
HEADS(head_half, 1)

// The gradient of `attend`, with the same arguments. Writes the gradient of the queries to call->out, and adds those of
// keys and values to dk and dv, fp32 [pages, kv heads, dim]. dout: the gradient of the output, like call->out.
CALL int attend_gradient(float *dk, float *dv, const void *dout, const Attention *call, int half, int threads) {
    const int dim = call->dim, heads = call->heads, kv_heads = call->kv_heads, share = heads / kv_heads;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int g = 0; g < kv_heads; g++) {
        const int64_t offset = (int64_t)g * dim, bytes = offset * (half ? 2 : 4), *starts = call->starts;
        float *work = scratch(sizeof(float) * TOGETHER * (2 * line_of(call->width) + 3 * padded(dim)));
        if (!work) {
            failed = 1;
            continue;
        }
        for (int64_t b = 0; b < call->count; b++)
            for (int h = g * share; h < (g + 1) * share; h++)
                (half ? head_half : head_full)(call->out, dk + offset, dv + offset, dout, call->q,
                                               (const char *)call->keys + bytes, (const char *)call->values + bytes,
                                               call->table, call->table_rows, call->contexts, call->order + starts[b],
                                               call->shared[b], (int64_t)kv_heads * dim, call->width,
                                               (int64_t)heads * dim, (int64_t)h * dim, dim,
                                               (int)(starts[b + 1] - starts[b]), call->scaling, work);
    }
    return failed;
}
