// Row-wise attention over paged keys and values. A row reads the pages in its row of the block table, in order.
#include "paged.h"

// Pages that are processed for all heads before the next ones; each head prefetches its part. The parts of a page are
// contiguous in memory, so the whole page is loaded at once.
#define CHUNK 16

INLINE const void *part(const void *pool, int64_t at, const int half) {
    return half ? (const void *)((const uint16_t *)pool + at) : (const void *)((const float *)pool + at);
}

// All heads of the rows order[0 .. rows), which share their first `shared` pages. `work` holds for each head the scores
// of each row, then the queries, then the outputs.
INLINE void attend_block(const Attention *call, const int64_t *order, int64_t shared, int64_t following, const int dim,
                         const int rows, float *work, const int half) {
    const int heads = call->heads, share = call->heads / call->kv_heads;
    const int64_t room = line_of(call->width), line = rows * room, head = padded(dim);
    const int64_t size = (int64_t)call->kv_heads * dim, step = (int64_t)heads * dim;
    float *queries = work + heads * line, *mixed = queries + heads * rows * head;
    for (int h = 0; h < heads; h++)
        for (int r = 0; r < rows; r++)
            fill(queries + (h * rows + r) * head, call->q, order[r] * step + h * dim, call->scaling, dim, half);
    memset(mixed, 0, sizeof(float) * heads * rows * head);
    const int64_t *pages = call->table + call->table_rows[order[0]] * call->width;
    const Wanted rest = {.ahead = CHUNK, .last = shared};
    for (int64_t start = 0; start < shared; start += CHUNK)
        for (int h = 0; h < heads; h++)
            score(work + h * line, room, queries + h * rows * head, part(call->keys, h / share * dim, half), pages,
                  start, start + CHUNK < shared ? start + CHUNK : shared, rest, size, dim, rows, half);
    for (int r = 0; r < rows; r++) {
        const int64_t context = call->contexts[order[r]], *own = call->table + call->table_rows[order[r]] * call->width;
        for (int64_t start = shared; start < context; start += CHUNK)
            for (int h = 0; h < heads; h++) {
                const int64_t at = h / share * dim;
                const Wanted wanted = {CHUNK, context, part(call->values, at, half), own, rows == 1 ? context : 0};
                score(work + h * line + r * room, room, queries + (h * rows + r) * head, part(call->keys, at, half),
                      own, start, start + CHUNK < context ? start + CHUNK : context, wanted, size, dim, 1, half);
            }
    }
    for (int h = 0; h < heads; h++)
        for (int r = 0; r < rows; r++) weigh(work + h * line + r * room, call->contexts[order[r]]);
    for (int64_t start = 0; start < shared; start += CHUNK)
        for (int h = 0; h < heads; h++)
            mix(mixed + h * rows * head, work + h * line, room, part(call->values, h / share * dim, half), pages, start,
                start + CHUNK < shared ? start + CHUNK : shared, rest, size, dim, rows, half);
    for (int r = 0; r < rows; r++) {
        const int64_t context = call->contexts[order[r]], *own = call->table + call->table_rows[order[r]] * call->width;
        const int64_t *others = call->table + call->table_rows[following] * call->width;
        for (int64_t start = shared; start < context; start += CHUNK)
            for (int h = 0; h < heads; h++) {
                const int64_t at = h / share * dim;
                const Wanted wanted = {CHUNK, context, part(call->keys, at, half), others,
                                       rows == 1 ? call->contexts[following] : 0};
                mix(mixed + (h * rows + r) * head, work + h * line + r * room, room, part(call->values, at, half), own,
                    start, start + CHUNK < context ? start + CHUNK : context, wanted, size, dim, 1, half);
            }
        for (int h = 0; h < heads; h++)
            VECTORS(dim, store(call->out, order[r] * step + h * dim + i, vector(mixed, (h * rows + r) * head + i), n,
                               half););
    }
}

#define CASE(D, R) \
    if (dim == D && rows == R) { \
        attend_block(call, order, shared, following, D, R, work, half); \
        return; \
    }
#define BLOCKS(NAME, HALF) \
    static __attribute__((noinline)) void NAME(const Attention *call, const int64_t *order, int64_t shared, \
                                               int64_t following, int dim, int rows, float *work) { \
        const int half = HALF; \
        /* Common sizes compile to straight-line vector code. */ \
        CASE(32, 1) CASE(32, 4) CASE(64, 1) CASE(64, 4) CASE(128, 1) CASE(128, 4) \
        attend_block(call, order, shared, following, dim, rows, work, half); \
    }
BLOCKS(block_full, 0)
BLOCKS(block_half, 1)

// Finds blocks of neighbors in `order` [n] with a shared prefix of pages. Writes the first index of each block to
// `starts` (followed by n) and the number of shared pages to `shared`. Returns the number of blocks.
CALL int64_t blocks(int64_t *starts, int64_t *shared, const int64_t *order, const int64_t *table,
                    const int64_t *table_rows, const int64_t *contexts, int64_t n, int64_t width) {
    int64_t count = 0;
    for (int64_t i = 0; i < n;) {
        const int64_t *first = table + table_rows[order[i]] * width;
        int64_t common = contexts[order[i]], rows = 1;
        for (; rows < TOGETHER && i + rows < n; rows++) {
            const int64_t row = order[i + rows], *other = table + table_rows[row] * width;
            const int64_t most = contexts[row] < common ? contexts[row] : common;
            int64_t same = 0;
            if (other == first) same = most;
            else while (same < most && other[same] == first[same]) same++;
            if (2 * same < common) break;  // the shared prefix would shrink too much
            common = same;
        }
        if (rows < TOGETHER) rows = 1;  // other sizes would need compiled variants, with little benefit
        starts[count] = i, shared[count++] = rows == 1 ? 0 : common;
        i += rows;
    }
    starts[count] = n;
    return count;
}

int attend_rows(const Attention *call, int half) {
    const int64_t count = call->count, *order = call->order, *starts = call->starts;
    float *work = scratch(sizeof(float) * call->heads * TOGETHER * (line_of(call->width) + 2 * padded(call->dim)));
    int all = 1;
#ifdef _OPENMP
    all = omp_get_num_threads();
#endif
    // If there are enough blocks for all threads, neighbors go to the same thread, which prefetches the next one's
    // pages.
#pragma omp for schedule(dynamic, count >= 8 * all ? 4 : 1) nowait
    for (int64_t b = 0; b < count; b++)
        if (work)
            (half ? block_half : block_full)(call, order + starts[b], call->shared[b],
                                             order[starts[b + 1 < count ? b + 1 : b]], call->dim,
                                             (int)(starts[b + 1] - starts[b]), work);
    return !work;
}

CALL int attend(const Attention *call, int half, int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    failed = attend_rows(call, half);
    return failed;
}
