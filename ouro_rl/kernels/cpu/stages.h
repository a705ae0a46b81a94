// What a layer does to its rows, stage by stage. All threads of a team call a stage together, each takes its part, and none waits at the
// end (but in `multiply`): who needs the result puts a barrier there. Outside a team one thread does it all.
// `half`: rows in memory are bf16, and else fp32.
#pragma once
#include "lanes.h"

// out [M, N] = x [M, K] times packed weights [N, K] transposed; `half`: the weights are bf16, `half_rows`: x and out are. `work` has
// `multiply_work` numbers for a team of `threads` at most. The threads wait for each other: out is whole afterwards.
int64_t multiply_work(int64_t M, int64_t K, int threads);
void multiply(void *out, const void *x, const void *weights, float *work, int64_t M, int64_t N, int64_t K, int half, int half_rows);

// out = x / rms(x) * weight; x, out [rows, width], weight fp32 [width].
void norm_rows(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half);

// to += x, [rows, width].
void add_rows(void *to, const void *x, int64_t rows, int64_t width, int half);

// Row places[r] of out [.., width] = row r of x, `stride` elements apart.
void put_rows(void *out, const int64_t *places, const void *x, int64_t rows, int64_t width, int64_t stride, int half);

// Row r of out [.., heads, width], or places[r] unless that is null, = rotary embedding of x by the row's angles, cos and sin fp32
// [rows, width / 2]. x has `stride` elements from row to row. `way` -1 turns back (the gradient).
void rotate_rows(void *out, const int64_t *places, const void *x, const float *cosines, const float *sines, int64_t rows,
                 int64_t heads, int64_t width, int64_t stride, float way, int half);

// out [rows, width] = silu(gate) * up, both with `stride` elements from row to row.
void activate_rows(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half);

// An attention over paged keys and values [pages, kv heads, dim]: row r of q [rows, heads, dim] reads the pages
// table[lines[r]][0 .. contexts[r]), in that order. Blocks of rows order[starts[b] .. starts[b + 1]) begin with the same
// shared[b] pages: see `blocks`.
typedef struct {
    void *out;
    const void *q, *keys, *values;
    const int64_t *table, *lines, *contexts, *order, *starts, *shared;
    int64_t count, width;  // blocks, entries of a line
    int64_t heads, kv_heads, dim;
    float scaling;
} Attention;

// Returns 0, or 1 without memory.
int attend_rows(const Attention *call, int half);
