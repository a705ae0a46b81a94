// Row operations between the products: norms, RoPE, activation. `half`: rows are bf16; sums are in fp32.
#include "stages.h"

// x / rms(x) * weight for one row. In bf16 the normed row is rounded before and after the weight, as in the published
// model.
INLINE void norm_row(void *out, const void *x, const float *weight, int64_t row, int64_t width, float eps,
                     const int half) {
    lanes squares[PIECES] = {0};
    VECTORS(width, {
        const lanes part = load(x, row * width + i, n, half);
        squares[c] += part * part;
    });
    const float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / width + eps);
    VECTORS(width, {
        const lanes normed = kept(load(x, row * width + i, n, half) * scale, half);
        store(out, row * width + i, normed * load(weight, i, n, 0), n, half);
    });
}

void norm_rows(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half) {
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++)
        if (half) norm_row(out, x, weight, r, width, eps, 1);
        else norm_row(out, x, weight, r, width, eps, 0);
}

CALL void rms_norm(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half,
                   int threads) {
#pragma omp parallel num_threads(threads)
    norm_rows(out, x, weight, rows, width, eps, half);
}

INLINE void add_row(void *to, const void *x, int64_t at, int64_t width, const int half) {
    VECTORS(width, store(to, at + i, load(to, at + i, n, half) + load(x, at + i, n, half), n, half););
}

void add_rows(void *to, const void *x, int64_t rows, int64_t width, int half) {
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++)
        if (half) add_row(to, x, r * width, width, 1);
        else add_row(to, x, r * width, width, 0);
}

void put_rows(void *out, const int64_t *places, const void *x, int64_t rows, int64_t width, int64_t stride, int half) {
    const int64_t size = half ? 2 : 4;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++)
        memcpy((char *)out + places[r] * width * size, (const char *)x + r * stride * size, width * size);
}

INLINE void rotate_row(void *out, int64_t to, const void *x, int64_t from, const float *cosines, const float *sines,
                       int64_t heads, int64_t width, float way, const int half) {
    const int64_t middle = width / 2;
    for (int64_t h = 0; h < heads; h++, from += width, to += width)
        VECTORS(middle, {
            const lanes first = load(x, from + i, n, half), second = load(x, from + middle + i, n, half);
            const lanes cosine = load(cosines, i, n, 0), sine = load(sines, i, n, 0) * way;
            store(out, to + i, first * cosine - second * sine, n, half);
            store(out, to + middle + i, second * cosine + first * sine, n, half);
        });
}

void rotate_rows(void *out, const int64_t *places, const void *x, const float *cosines, const float *sines,
                 int64_t rows, int64_t heads, int64_t width, int64_t stride, float way, int half) {
    const int64_t middle = width / 2;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++) {
        const int64_t to = (places ? places[r] : r) * heads * width;
        if (half) rotate_row(out, to, x, r * stride, cosines + r * middle, sines + r * middle, heads, width, way, 1);
        else rotate_row(out, to, x, r * stride, cosines + r * middle, sines + r * middle, heads, width, way, 0);
    }
}

CALL void rotate(void *out, const void *x, const float *cosines, const float *sines, int64_t rows, int64_t heads,
                 int64_t width, int64_t stride, float way, int half, int threads) {
#pragma omp parallel num_threads(threads)
    rotate_rows(out, 0, x, cosines, sines, rows, heads, width, stride, way, half);
}

INLINE void activate_row(void *out, const void *gate, const void *up, int64_t row, int64_t width, int64_t stride,
                         const int half) {
    VECTORS(width, {
        const lanes x = greater(load(gate, row * stride + i, n, half), (lanes){0} - 87.0f);  // 0 there
        store(out, row * width + i, x / (exponential(-x) + 1.0f) * load(up, row * stride + i, n, half), n, half);
    });
}

void activate_rows(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half) {
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++)
        if (half) activate_row(out, gate, up, r, width, stride, 1);
        else activate_row(out, gate, up, r, width, stride, 0);
}

CALL void silu_mul(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half,
                   int threads) {
#pragma omp parallel num_threads(threads)
    activate_rows(out, gate, up, rows, width, stride, half);
}

// Gradients of the norm: dx of each row, and dw [ceil(rows / PART), width] in fp32, one partial sum per PART rows.
#define PART 64
INLINE void normed_gradient(void *dx, float *dw, const void *grad, const void *x, const float *weight, int64_t rows,
                            int64_t width, float eps, const int half, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t part = 0; part < (rows + PART - 1) / PART; part++) {
        float *sums = dw + part * width;
        memset(sums, 0, sizeof(float) * width);
        for (int64_t r = part * PART; r < rows && r < (part + 1) * PART; r++) {
            lanes squares[PIECES] = {0}, along[PIECES] = {0};
            VECTORS(width, {
                const lanes value = load(x, r * width + i, n, half);
                squares[c] += value * value;
                along[c] += load(grad, r * width + i, n, half) * load(weight, i, n, 0) * value;
            });
            const float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / width + eps);
            const float back = sum_of(along) * scale * scale / width;
            VECTORS(width, {
                const lanes value = load(x, r * width + i, n, half), g = load(grad, r * width + i, n, half);
                store(dx, r * width + i, (g * load(weight, i, n, 0) - value * back) * scale, n, half);
                store(sums, i, load(sums, i, n, 0) + g * value * scale, n, 0);
            });
        }
    }
}

CALL void rms_norm_gradient(void *dx, float *dw, const void *grad, const void *x, const float *weight, int64_t rows,
                            int64_t width, float eps, int half, int threads) {
    if (half) normed_gradient(dx, dw, grad, x, weight, rows, width, eps, 1, threads);
    else normed_gradient(dx, dw, grad, x, weight, rows, width, eps, 0, threads);
}

// Gradients of `silu_mul`, dense; gate and up as in `silu_mul`.
INLINE void activated_gradient(void *dgate, void *dup, const void *grad, const void *gate, const void *up, int64_t rows,
                               int64_t width, int64_t stride, const int half, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        VECTORS(width, {
            const lanes x = greater(load(gate, r * stride + i, n, half), (lanes){0} - 87.0f),
                        g = load(grad, r * width + i, n, half);
            const lanes opened = 1.0f / (exponential(-x) + 1.0f), through = x * opened,
                        other = load(up, r * stride + i, n, half);
            store(dup, r * width + i, g * through, n, half);
            store(dgate, r * width + i, g * other * (opened + through * (1.0f - opened)), n, half);
        });
}

CALL void silu_mul_gradient(void *dgate, void *dup, const void *grad, const void *gate, const void *up, int64_t rows,
                            int64_t width, int64_t stride, int half, int threads) {
    if (half) activated_gradient(dgate, dup, grad, gate, up, rows, width, stride, 1, threads);
    else activated_gradient(dgate, dup, grad, gate, up, rows, width, stride, 0, threads);
}
