// Vectors of 16 numbers in fp32, read from and written to fp32 or bf16 memory. The compiler maps them to what the CPU has.
// Everything here is a fixed sequence of operations on one row: a row's result does not depend on its company.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define CALL __attribute__((visibility("default")))

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE lanes as_lanes(words x) { union { words w; lanes f; } same = {x}; return same.f; }
INLINE words as_words(lanes x) { union { lanes f; words w; } same = {x}; return same.w; }

// Words of 16 bits and of 32. GCC takes a vector apart for what is one instruction of AVX-512.
#ifdef __AVX512F__
INLINE halves narrowed(words x) { return (halves)_mm512_cvtepi32_epi16((__m512i)x); }
INLINE words spread_out(halves x) { return (words)_mm512_cvtepu16_epi32((__m256i)x); }
#else
INLINE halves narrowed(words x) { return __builtin_convertvector(x, halves); }
INLINE words spread_out(halves x) { return __builtin_convertvector(x, words); }
#endif

// fp32 -> bf16, to the nearest, ties to even.
INLINE halves rounded(lanes x) {
    words bits = as_words(x);
    return narrowed((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE lanes widened(halves x) { return as_lanes(spread_out(x) << 16); }

// Element `at` and the 15 behind it. `half`: the memory holds bf16.
INLINE lanes load(const void *from, int64_t at, const int half) {
    return half ? widened(*(const halves *)((const uint16_t *)from + at)) : *(const lanes *)((const float *)from + at);
}

INLINE void store(void *to, int64_t at, lanes x, const int half) {
    if (half) *(halves *)((uint16_t *)to + at) = rounded(x);
    else *(lanes *)((float *)to + at) = x;
}

// What `store` and `load` would make of it.
INLINE lanes kept(lanes x, const int half) { return half ? widened(rounded(x)) : x; }

#ifdef __clang__
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, (integers){__VA_ARGS__})
#endif
#define EACH(F, W) F(0, W), F(1, W), F(2, W), F(3, W), F(4, W), F(5, W), F(6, W), F(7, W), F(8, W), F(9, W), F(10, W), F(11, W), \
                   F(12, W), F(13, W), F(14, W), F(15, W)
// Two vectors are cut into pieces of W (8, 4, 2 or 1): the even pieces of both in turn, and the odd ones.
#define EVEN_PIECES(A, B, W) SHUFFLE(A, B, EACH(EVEN_PIECE, W))
#define ODD_PIECES(A, B, W) SHUFFLE(A, B, EACH(ODD_PIECE, W))
#define EVEN_PIECE(I, W) ((I) & (W) ? (I) - (W) + LANES : (I))
#define ODD_PIECE(I, W) ((I) & (W) ? (I) + LANES : (I) + (W))

// 16 vectors as the rows of a matrix -> its columns, in place.
INLINE void transpose(lanes *v) {
#define TURN(W) \
    for (int i = 0; i < LANES; i++) \
        if (!(i & W)) { \
            const lanes a = v[i], b = v[i + W]; \
            v[i] = EVEN_PIECES(a, b, W), v[i + W] = ODD_PIECES(a, b, W); \
        }
    TURN(8) TURN(4) TURN(2) TURN(1)
}

INLINE float sum_of(lanes x) {
    float sum = 0;
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) x[i] += x[i + width];
    sum = x[0];
    return sum;
}

INLINE lanes chosen(integers where, lanes x, lanes y) {
    return as_lanes((as_words(x) & (words)where) | (as_words(y) & ~(words)where));
}
// What is not a number stays so in x.
INLINE lanes lesser(lanes x, lanes y) { return chosen(x > y, y, x); }
INLINE lanes greater(lanes x, lanes y) { return chosen(x < y, y, x); }

// exp(x) to 1e-7 relative for -87 <= x <= 88; beyond that its value at the border. Cephes' polynomial.
INLINE lanes exponential(lanes x) {
    const lanes none = {0};
    x = lesser(greater(x, none - 87.0f), none + 88.0f);
    const lanes scaled = x * 1.44269504f;
    const integers n = __builtin_convertvector(scaled + chosen(scaled < none, none - 0.5f, none + 0.5f), integers);
    const lanes whole = __builtin_convertvector(n, lanes);
    const lanes r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * as_lanes((words)(n + 127) << 23);
}

// Scratch memory of the calling thread, kept between calls. Null when there is none left.
INLINE void *scratch(size_t bytes) {
    static _Thread_local void *memory;
    static _Thread_local size_t size;
    if (bytes > size) {
        free(memory);
        memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
        size = memory ? bytes : 0;
    }
    return memory;
}
