// The stages of a layer. All threads of a team call a stage together and each computes its part. Stages (except
// `multiply`) do not wait at the end: callers that need the result add a barrier. Outside a team, one thread computes
// everything. `half`: rows in memory are bf16, otherwise fp32.
#pragma once
#include "lanes.h"

// out [M, N] = x [M, K] times packed weights [N, K] transposed; `half`: all are bf16, otherwise fp32. `work` holds
// `multiply_work` numbers, for a team of at most `threads`. The threads wait for each other: out is complete
// afterwards.
int64_t multiply_work(int64_t M, int64_t K, int threads);
void multiply(void *out, const void *x, const void *weights, float *work, int64_t M, int64_t N, int64_t K, int half);

// out = x / rms(x) * weight; x, out [rows, width], weight fp32 [width].
void norm_rows(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half);

// to += x, [rows, width].
void add_rows(void *to, const void *x, int64_t rows, int64_t width, int half);

// Row places[r] of out [.., width] = row r of x, `stride` elements apart.
void put_rows(void *out, const int64_t *places, const void *x, int64_t rows, int64_t width, int64_t stride, int half);

// Row places[r] of out [.., heads, width] (row r if `places` is NULL) = rotary embedding of row r of x, with cosines
// and sines fp32 [rows, width / 2]. x has a row stride of `stride` elements. `way` -1: the inverse rotation (the
// gradient).
void rotate_rows(void *out, const int64_t *places, const void *x, const float *cosines, const float *sines,
                 int64_t rows, int64_t heads, int64_t width, int64_t stride, float way, int half);

// out [rows, width] = silu(gate) * up, both with a row stride of `stride` elements.
void activate_rows(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half);

// An attention over paged keys and values [pages, kv heads, dim]: row r of q [rows, heads, dim] reads the pages
// table[table_rows[r]][0 .. contexts[r]) of the block table, in order. The rows order[starts[b] .. starts[b + 1]) of
// block b share their first shared[b] pages: see `blocks`.
typedef struct {
    void *out;
    const void *q, *keys, *values;
    const int64_t *table, *table_rows, *contexts, *order, *starts, *shared;
    int64_t count, width;  // number of blocks, entries per block-table row
    int64_t heads, kv_heads, dim;
    float scaling;
} Attention;

// Returns 0, or 1 if out of memory.
int attend_rows(const Attention *call, int half);
