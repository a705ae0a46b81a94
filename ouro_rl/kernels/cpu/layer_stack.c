// All layers of the model by one team of threads: the same results as separate calls of the stages, without their
// overhead.
#include "stages.h"

typedef struct {
    const void *qkv, *out, *gate_up, *down;  // packed weights
    const float *norms[4];                   // before and after the attention, before and after the MLP
    void *keys, *values;                     // KV pools
} Layer;

// Runs states [rows, hidden] through `count` layers and the final norm `last`, in place. Row r writes page pages[r] of
// each layer; `attention` says what it reads. Returns 0, or 1 if out of memory.
CALL int stack(void *states, const Layer *layers, int64_t count, const float *last, const int64_t *pages,
               const float *cosines, const float *sines, const Attention *attention, int64_t rows, int64_t hidden,
               int64_t middle, float eps, int half, int threads) {
    const int64_t heads = attention->heads, kv_heads = attention->kv_heads, dim = attention->dim, size = half ? 2 : 4;
    const int64_t all_q = heads * dim, all_kv = kv_heads * dim, qkv = all_q + 2 * all_kv;
    const int64_t wide = qkv > 2 * middle ? qkv : 2 * middle, inner = all_q > middle ? all_q : middle;
    int64_t most = multiply_work(rows, hidden, threads);
    if (most < multiply_work(rows, all_q, threads)) most = multiply_work(rows, all_q, threads);
    if (most < multiply_work(rows, middle, threads)) most = multiply_work(rows, middle, threads);
    char *room = scratch(sizeof(float) * most + size * rows * (wide + hidden + inner + all_q));
    if (!room && rows) return 1;
    float *work = (float *)room;
    char *left = room + sizeof(float) * most, *right = left + size * rows * wide, *mixed = right + size * rows * hidden;
    char *q = mixed + size * rows * inner;
    const char *k = left + size * all_q, *v = k + size * all_kv, *up = left + size * middle;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Attention reads = *attention;
        reads.q = q, reads.out = mixed;
        norm_rows(right, states, layers->norms[0], rows, hidden, eps, half);
        for (const Layer *layer = layers; layer < layers + count; layer++) {
#pragma omp barrier
            multiply(left, right, layer->qkv, work, rows, qkv, hidden, half);
            rotate_rows(q, 0, left, cosines, sines, rows, heads, dim, qkv, 1, half);
            rotate_rows(layer->keys, pages, k, cosines, sines, rows, kv_heads, dim, qkv, 1, half);
            put_rows(layer->values, pages, v, rows, all_kv, qkv, half);  // rows of one page write the same values
            reads.keys = layer->keys, reads.values = layer->values;
#pragma omp barrier
            failed |= attend_rows(&reads, half);
#pragma omp barrier
            multiply(right, mixed, layer->out, work, rows, hidden, all_q, half);
            // Each thread has the same rows in all three calls, so no barrier is needed.
            norm_rows(right, right, layer->norms[1], rows, hidden, eps, half);
            add_rows(states, right, rows, hidden, half);
            norm_rows(right, states, layer->norms[2], rows, hidden, eps, half);
#pragma omp barrier
            multiply(left, right, layer->gate_up, work, rows, 2 * middle, hidden, half);
            activate_rows(mixed, left, up, rows, middle, 2 * middle, half);
#pragma omp barrier
            multiply(right, mixed, layer->down, work, rows, hidden, middle, half);
            norm_rows(right, right, layer->norms[3], rows, hidden, eps, half);
            add_rows(states, right, rows, hidden, half);
            if (layer + 1 < layers + count) norm_rows(right, states, layer[1].norms[0], rows, hidden, eps, half);
        }
        norm_rows(states, states, last, rows, hidden, eps, half);
    }
    return failed;
}
