// Row-wise paged attention in fp32. Every row is computed in the same order whatever its company, so its result is
// the same to the bit alone and in a batch. See `native_attention.py` for the build.
#include <stdint.h>

#define AHEAD 8   // pages between asking for one and using it
#define LANES 16  // floats that are multiplied together; head sizes that are no multiple take a slower way

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float half __attribute__((vector_size(2 * LANES)));
typedef float quarter __attribute__((vector_size(LANES)));

// exp(x) for x <= 0, to 1e-7 relative: Cephes' polynomial, in a form that the compiler vectorises.
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    int32_t n = (int32_t)(x * 1.44269504f - 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t i; float f; } power = {(n + 127) << 23};
    return p * power.f;
}

static inline float sum_of(lanes x) {
    union { lanes all; half half[2]; } a = {x};
    union { half all; quarter half[2]; } b = {a.half[0] + a.half[1]};
    quarter c = b.half[0] + b.half[1];
    return (c[0] + c[2]) + (c[1] + c[3]);
}

// One head of one row: q [dim] over `context` pages -> out [dim]. `keys` and `values` point at this head's part of page 0;
// `size` floats lie between two pages. `scores` is scratch for `context` floats. `dim` is a multiple of LANES, at most 256.
static inline __attribute__((always_inline)) void attend_head(
    float *restrict out, const float *restrict q, const float *restrict keys, const float *restrict values,
    const int64_t *restrict pages, int64_t context, int64_t size, const int dim, float scaling, float *restrict scores) {
    const int parts = dim / LANES;
    lanes query[16], mixed[16];
    for (int i = 0; i < parts; i++) query[i] = *(const lanes *)(q + i * LANES) * scaling, mixed[i] = (lanes){0};
    float highest = -3.0e38f, total = 0.0f;
    for (int64_t j = 0; j < context; j++) {
        // Pages lie anywhere: ask for a later one, and for the values, while this one is used.
        for (int d = 0; d < dim; d += 16) {
            __builtin_prefetch(keys + pages[j + AHEAD < context ? j + AHEAD : j] * size + d);
            __builtin_prefetch(values + pages[j] * size + d);
        }
        const lanes *k = (const lanes *)(keys + pages[j] * size);
        lanes products = query[0] * k[0];
        for (int i = 1; i < parts; i++) products += query[i] * k[i];
        scores[j] = sum_of(products);
    }
#pragma omp simd reduction(max : highest)
    for (int64_t j = 0; j < context; j++) highest = scores[j] > highest ? scores[j] : highest;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < context; j++) total += scores[j] = exp_negative(scores[j] - highest);
    for (int64_t j = 0; j < context; j++) {
        const lanes *v = (const lanes *)(values + pages[j] * size);
        for (int i = 0; i < parts; i++) mixed[i] += scores[j] * v[i];
    }
    for (int i = 0; i < parts; i++) *(lanes *)(out + i * LANES) = mixed[i] / total;
}

// Rows [start, stop): row r reads the first contexts[r] pages of table[lines[r]], a line of `width` entries, from
// keys and values [pages, kv_heads, dim]. `scores` is scratch for `width` floats.
void attend_rows(float *out, const float *q, const float *keys, const float *values, const int64_t *table,
                 const int64_t *lines, const int64_t *contexts, int64_t start, int64_t stop, int64_t width, int heads,
                 int kv_heads, int dim, float scaling, float *scores) {
    const int share = heads / kv_heads;
    for (int64_t r = start; r < stop; r++)
        for (int h = 0; h < heads; h++) {
            const int64_t at = (r * heads + h) * dim, head = (int64_t)(h / share) * dim;
            // Known sizes compile to straight vector code.
#define HEAD(D) \
    attend_head(out + at, q + at, keys + head, values + head, table + lines[r] * width, contexts[r], \
                (int64_t)kv_heads * dim, D, scaling, scores)
            if (dim == 32) HEAD(32);
            else if (dim == 64) HEAD(64);
            else if (dim == 128) HEAD(128);
            else HEAD(dim);
        }
}
