// What happens to rows between the products: norms, rotation, the MLP's activation. `half`: the rows are bf16; sums are in fp32.
#include "lanes.h"

// out = x / rms(x) * weight; x, out [rows, width], weight fp32 [width]. In bf16 the normed row is rounded before it is weighted
// and after, as the published model does.
INLINE void normed(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, const int half,
                   int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        lanes squares = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            const lanes part = load(x, r * width + i, half);
            squares += part * part;
        }
        const float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / width + eps);
        for (int64_t i = 0; i < width; i += LANES)
            store(out, r * width + i, kept(load(x, r * width + i, half) * scale, half) * load(weight, i, 0), half);
    }
}

CALL void rms_norm(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half, int threads) {
    if (half) normed(out, x, weight, rows, width, eps, 1, threads);
    else normed(out, x, weight, rows, width, eps, 0, threads);
}

// out = rotary embedding of x: heads of `width` by `angles` of the row, cos and sin fp32 [rows, width / 2].
// x has `stride` elements from row to row, out is dense. `way` -1 turns back (the gradient).
INLINE void turned(void *out, const void *x, const float *cosines, const float *sines, int64_t rows, int64_t heads, int64_t width,
                   int64_t stride, float way, const int half, int threads) {
    const int64_t middle = width / 2;
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t from = r * stride + h * width, to = (r * heads + h) * width;
            for (int64_t i = 0; i < middle; i += LANES) {
                const lanes first = load(x, from + i, half), second = load(x, from + middle + i, half);
                const lanes c = load(cosines, r * middle + i, 0), s = load(sines, r * middle + i, 0) * way;
                store(out, to + i, first * c - second * s, half);
                store(out, to + middle + i, second * c + first * s, half);
            }
        }
}

CALL void rotate(void *out, const void *x, const float *cosines, const float *sines, int64_t rows, int64_t heads, int64_t width,
                 int64_t stride, float way, int half, int threads) {
    if (half) turned(out, x, cosines, sines, rows, heads, width, stride, way, 1, threads);
    else turned(out, x, cosines, sines, rows, heads, width, stride, way, 0, threads);
}

// out = silu(gate) * up; [rows, width] each, gate and up with `stride` elements from row to row.
INLINE void activated(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, const int half,
                      int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i += LANES) {
            const lanes x = greater(load(gate, r * stride + i, half), (lanes){0} - 87.0f);  // where it is 0 already
            store(out, r * width + i, x / (exponential(-x) + 1.0f) * load(up, r * stride + i, half), half);
        }
}

CALL void silu_mul(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half, int threads) {
    if (half) activated(out, gate, up, rows, width, stride, 1, threads);
    else activated(out, gate, up, rows, width, stride, 0, threads);
}

// Gradients of the norm: dx of each row; dw [ceil(rows / PART), width] in fp32, one line for every PART rows (to be added up).
#define PART 64
INLINE void normed_gradient(void *dx, float *dw, const void *grad, const void *x, const float *weight, int64_t rows,
                            int64_t width, float eps, const int half, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t part = 0; part < (rows + PART - 1) / PART; part++) {
        float *sums = dw + part * width;
        memset(sums, 0, sizeof(float) * width);
        for (int64_t r = part * PART; r < rows && r < (part + 1) * PART; r++) {
            lanes squares = {0}, along = {0};
            for (int64_t i = 0; i < width; i += LANES) {
                const lanes value = load(x, r * width + i, half);
                squares += value * value;
                along += load(grad, r * width + i, half) * load(weight, i, 0) * value;
            }
            const float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / width + eps);
            const float back = sum_of(along) * scale * scale / width;
            for (int64_t i = 0; i < width; i += LANES) {
                const lanes value = load(x, r * width + i, half), g = load(grad, r * width + i, half);
                store(dx, r * width + i, (g * load(weight, i, 0) - value * back) * scale, half);
                store(sums, i, load(sums, i, 0) + g * value * scale, 0);
            }
        }
    }
}

CALL void rms_norm_gradient(void *dx, float *dw, const void *grad, const void *x, const float *weight, int64_t rows, int64_t width,
                            float eps, int half, int threads) {
    if (half) normed_gradient(dx, dw, grad, x, weight, rows, width, eps, 1, threads);
    else normed_gradient(dx, dw, grad, x, weight, rows, width, eps, 0, threads);
}

// Gradients of `silu_mul`, dense; gate and up as there.
INLINE void activated_gradient(void *dgate, void *dup, const void *grad, const void *gate, const void *up, int64_t rows,
                               int64_t width, int64_t stride, const int half, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i += LANES) {
            const lanes x = greater(load(gate, r * stride + i, half), (lanes){0} - 87.0f), g = load(grad, r * width + i, half);
            const lanes opened = 1.0f / (exponential(-x) + 1.0f), through = x * opened;
            store(dup, r * width + i, g * through, half);
            store(dgate, r * width + i, g * load(up, r * stride + i, half) * (opened + through * (1.0f - opened)), half);
        }
}

CALL void silu_mul_gradient(void *dgate, void *dup, const void *grad, const void *gate, const void *up, int64_t rows,
                            int64_t width, int64_t stride, int half, int threads) {
    if (half) activated_gradient(dgate, dup, grad, gate, up, rows, width, stride, 1, threads);
    else activated_gradient(dgate, dup, grad, gate, up, rows, width, stride, 0, threads);
}
