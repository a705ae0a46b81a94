// fp32 vectors of the CPU's register width, loaded from and stored to fp32 or bf16 memory.
// Every function is a fixed sequence of operations on one row, so results are batch-invariant.
#pragma once
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX2__
#include <immintrin.h>
#endif

// Numbers per vector. Vectors wider than the registers would go through memory.
#if defined __AVX512F__
#define WIDTH 16
#elif defined __AVX2__
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define LANES 16  // partial sums of a sum over a row, for any register width: all widths sum in the same order
#define PIECES (LANES / WIDTH)
// Sums that stay in registers while other data is loaded.
#if defined __AVX512F__ || defined __aarch64__
#define SUMS 16
#else
#define SUMS 8
#endif
#define INLINE static inline __attribute__((always_inline))
#define CALL __attribute__((visibility("default")))

typedef float lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));

INLINE lanes as_lanes(words x) { union { words w; lanes f; } same = {x}; return same.f; }
INLINE words as_words(lanes x) { union { lanes f; words w; } same = {x}; return same.w; }

// Conversions between 16-bit and 32-bit words. GCC would split vectors for what takes one or two instructions.
#if WIDTH == 16
INLINE halves narrowed(words x) { return (halves)_mm512_cvtepi32_epi16((__m512i)x); }
INLINE words spread_out(halves x) { return (words)_mm512_cvtepu16_epi32((__m256i)x); }
#elif WIDTH == 8
INLINE halves narrowed(words x) {
    const __m256i twice = _mm256_packus_epi32((__m256i)x, (__m256i)x);  // works on each half of the register separately
    return (halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(twice, 0x08));
}
INLINE words spread_out(halves x) { return (words)_mm256_cvtepu16_epi32((__m128i)x); }
#else
INLINE halves narrowed(words x) { return __builtin_convertvector(x, halves); }
INLINE words spread_out(halves x) { return __builtin_convertvector(x, words); }
#endif

// fp32 -> bf16, rounding to nearest even.
INLINE halves rounded(lanes x) {
    words bits = as_words(x);
    return narrowed((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE lanes widened(halves x) { return as_lanes(spread_out(x) << 16); }

// `n` elements (at most WIDTH) from index `at` on, padded with zeros. `half`: the memory holds bf16.
INLINE lanes load(const void *from, int64_t at, const int n, const int half) {
    const void *first = half ? (const void *)((const uint16_t *)from + at) : (const void *)((const float *)from + at);
    if (n == WIDTH) return half ? widened(*(const halves *)first) : *(const lanes *)first;
    lanes some = {0};
    halves some_halves = {0};
    if (half) memcpy(&some_halves, first, sizeof(uint16_t) * n);
    else memcpy(&some, first, sizeof(float) * n);
    return half ? widened(some_halves) : some;
}

INLINE void store(void *to, int64_t at, lanes x, const int n, const int half) {
    void *first = half ? (void *)((uint16_t *)to + at) : (void *)((float *)to + at);
    const halves in_half = rounded(x);
    if (n < WIDTH)
        memcpy(first, half ? (const void *)&in_half : (const void *)&x, (half ? sizeof(uint16_t) : sizeof(float)) * n);
    else if (half) *(halves *)first = in_half;
    else *(lanes *)first = x;
}

// A full vector of fp32 memory.
INLINE lanes vector(const float *from, int64_t at) { return *(const lanes *)(from + at); }
INLINE void put(float *to, int64_t at, lanes x) { *(lanes *)(to + at) = x; }

// Runs the code for each vector of a row of COUNT numbers: `i` is its first index, `n` its length (WIDTH except for the
// last one), and `c` its index among the vectors of a group of LANES numbers.
#define VECTORS(COUNT, ...) \
    do { \
        const int64_t count_ = (COUNT), whole_ = count_ / LANES * LANES; \
        for (int64_t start_ = 0; start_ < whole_; start_ += LANES) \
            for (int c = 0; c < PIECES; c++) { \
                const int64_t i = start_ + c * WIDTH; \
                const int n = WIDTH; \
                __VA_ARGS__ \
            } \
        for (int c = 0; c < PIECES; c++) { \
            const int64_t i = whole_ + c * WIDTH; \
            const int n = count_ - i < WIDTH ? (int)(count_ - i) : WIDTH; \
            if (n > 0) { __VA_ARGS__ } \
        } \
    } while (0)

// The value after `store` and `load`.
INLINE lanes kept(lanes x, const int half) { return half ? widened(rounded(x)) : x; }

#ifdef __clang__
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, (integers){__VA_ARGS__})
#endif
// Indices of a shuffle, and one step for each size of pieces that a vector can be split into.
#define EACH_4(F, I, W) F(I, W), F(I + 1, W), F(I + 2, W), F(I + 3, W)
#if WIDTH == 16
#define EACH(F, W) EACH_4(F, 0, W), EACH_4(F, 4, W), EACH_4(F, 8, W), EACH_4(F, 12, W)
#define STEPS(STEP) STEP(8) STEP(4) STEP(2) STEP(1)
#elif WIDTH == 8
#define EACH(F, W) EACH_4(F, 0, W), EACH_4(F, 4, W)
#define STEPS(STEP) STEP(4) STEP(2) STEP(1)
#else
#define EACH(F, W) EACH_4(F, 0, W)
#define STEPS(STEP) STEP(2) STEP(1)
#endif
// Two vectors are split into pieces of W numbers: the even pieces of both, interleaved, and the odd ones.
#define EVEN_PIECES(A, B, W) SHUFFLE(A, B, EACH(EVEN_PIECE, W))
#define ODD_PIECES(A, B, W) SHUFFLE(A, B, EACH(ODD_PIECE, W))
#define EVEN_PIECE(I, W) ((I) & (W) ? (I) - (W) + WIDTH : (I))
#define ODD_PIECE(I, W) ((I) & (W) ? (I) + WIDTH : (I) + (W))

// WIDTH vectors as the rows of a matrix -> its columns, in place.
INLINE void transpose(lanes *v) {
#define TURN(W) \
    for (int i = 0; i < WIDTH; i++) \
        if (!(i & W)) { \
            const lanes a = v[i], b = v[i + W]; \
            v[i] = EVEN_PIECES(a, b, W), v[i + W] = ODD_PIECES(a, b, W); \
        }
    STEPS(TURN)
}

// LANES partial sums -> WIDTH, adding halves in the same order as `sum_of` and `sums_of` continue.
INLINE lanes folded(const lanes *sums) {
#if PIECES == 1
    return sums[0];
#elif PIECES == 2
    return sums[0] + sums[1];
#else
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
#endif
}

INLINE float sum_of(const lanes *sums) {
    lanes x = folded(sums);
    for (int width = WIDTH / 2; width; width /= 2)
        for (int i = 0; i < width; i++) x[i] += x[i + width];
    return x[0];
}

// The horizontal sums of WIDTH vectors.
INLINE lanes sums_of(lanes *v) {
#define FOLD(W) \
    for (int i = 0; i < W; i++) v[i] = EVEN_PIECES(v[i], v[i + W], W) + ODD_PIECES(v[i], v[i + W], W);
    STEPS(FOLD)
    return v[0];
}

INLINE lanes chosen(integers where, lanes x, lanes y) {
    return as_lanes((as_words(x) & (words)where) | (as_words(y) & ~(words)where));
}
// NaN in x is propagated.
INLINE lanes lesser(lanes x, lanes y) { return chosen(x > y, y, x); }
INLINE lanes greater(lanes x, lanes y) { return chosen(x < y, y, x); }

// exp(x) with a relative error of 1e-7 for -87 <= x <= 88, clamped outside. Polynomial from Cephes.
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

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
__attribute__((unused)) static void make_scratch_key(void) {
    if (pthread_key_create(&scratch_key, free)) abort();  // no process has that many keys
}

// Scratch memory of the calling thread, kept between calls and freed with the thread. NULL if the allocation fails.
INLINE void *scratch(size_t bytes) {
    static _Thread_local size_t size;
    pthread_once(&scratch_once, make_scratch_key);
    void *memory = pthread_getspecific(scratch_key);
    if (bytes > size) {
        void *larger = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!larger || pthread_setspecific(scratch_key, larger)) {
            free(larger);
            return NULL;
        }
        free(memory);
        memory = larger, size = bytes;
    }
    return memory;
}
