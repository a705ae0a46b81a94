// Tests the C kernels without Python, for other compilers and CPUs: each kernel against a slow loop, and every row
// bitwise against itself in a batch. Built with the files of ouro_rl/kernels/cpu; prints what is wrong and exits with
// the number of faults.
#include <math.h>
#include <stdio.h>
#include "stages.h"

int linear(void *out, const void *x, const void *weights, int64_t M, int64_t N, int64_t K, int half, int threads);
void rms_norm(void *out, const void *x, const float *weight, int64_t rows, int64_t width, float eps, int half, int threads);
void silu_mul(void *out, const void *gate, const void *up, int64_t rows, int64_t width, int64_t stride, int half, int threads);
int64_t blocks(int64_t *starts, int64_t *shared, const int64_t *order, const int64_t *table, const int64_t *table_rows,
               const int64_t *contexts, int64_t n, int64_t width);
int attend(const Attention *call, int half, int threads);

#define MOST 20000
static int faults;

static void check(int right, const char *what, int size, int half) {
    if (right) return;
    printf("%s of %d, %s\n", what, size, half ? "bf16" : "fp32");
    faults++;
}

static float any(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) / 8388608.0f - 1.0f;
}

// Numbers as the kernels store them, and their values.
static void draw(void *x, int64_t count, int half) {
    for (int64_t i = 0; i < count; i++) {
        float value = any();
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (half) ((uint16_t *)x)[i] = bits >> 16;
        else ((float *)x)[i] = value;
    }
}

static double worth(const void *x, int64_t at, int half) {
    if (!half) return ((const float *)x)[at];
    const uint32_t bits = (uint32_t)((const uint16_t *)x)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static int near(double got, double expected, double scale, int half) { return fabs(got - expected) <= scale * (half ? 1.0 / 64 : 1e-5); }

static const void *row(const void *x, int64_t at, int half) { return (const char *)x + at * (half ? 2 : 4); }

static void products(int rows, int outputs, int inputs, int half) {
    static float x[MOST], weights[MOST], out[MOST], alone[MOST], plain[MOST];
    const int steps = half ? (inputs + 1) / 2 * 2 : inputs;  // bf16: in pairs, of which the last may be half used
    draw(x, rows * inputs, half), draw(weights, (outputs + 31) / 32 * 32 * steps, half);
    for (int n = 0; n < outputs; n++)
        for (int k = 0; k < inputs; k++) {
            const int panel = n / 32 * 32 * steps, column = n % 32;
            plain[n * inputs + k] = worth(weights, panel + (half ? k / 2 * 64 + column * 2 + k % 2 : k * 32 + column), half);
        }
    linear(out, x, weights, rows, outputs, inputs, half, 1);
    for (int r = 0; r < rows; r++) {
        linear(alone, row(x, r * inputs, half), weights, 1, outputs, inputs, half, 1);
        check(!memcmp(alone, row(out, r * outputs, half), outputs * (half ? 2 : 4)), "product alone", inputs, half);
        for (int n = 0; n < outputs; n++) {
            double sum = 0;
            for (int k = 0; k < inputs; k++) sum += worth(x, r * inputs + k, half) * plain[n * inputs + k];
            check(near(worth(out, r * outputs + n, half), sum, inputs, half), "product", inputs, half);
        }
    }
}

static void single_rows(int rows, int width, int half) {
    static float x[MOST], up[MOST], weight[MOST], normed[MOST], active[MOST], alone[MOST];
    draw(x, rows * width, half), draw(up, rows * width, half), draw(weight, width, 0);
    rms_norm(normed, x, weight, rows, width, 1e-6f, half, 1);
    silu_mul(active, x, up, rows, width, width, half, 1);
    for (int r = 0; r < rows; r++) {
        const void *mine = row(x, r * width, half);
        rms_norm(alone, mine, weight, 1, width, 1e-6f, half, 1);
        check(!memcmp(alone, row(normed, r * width, half), width * (half ? 2 : 4)), "norm alone", width, half);
        silu_mul(alone, mine, row(up, r * width, half), 1, width, width, half, 1);
        check(!memcmp(alone, row(active, r * width, half), width * (half ? 2 : 4)), "activation alone", width, half);
        double squares = 0;
        for (int i = 0; i < width; i++) squares += worth(mine, i, half) * worth(mine, i, half);
        for (int i = 0; i < width; i++) {
            const double value = worth(mine, i, half);
            check(near(worth(normed, r * width + i, half), value / sqrt(squares / width + 1e-6) * weight[i], 2, half), "norm", width, half);
            check(near(worth(active, r * width + i, half), value / (1 + exp(-value)) * worth(up, r * width + i, half), 1, half), "activation",
                  width, half);
        }
    }
}

// 6 rows of 3 heads that share one KV head; five of them share the first 20 of 37 pages.
static void attention(int dim, int half) {
    enum { ROWS = 6, HEADS = 3, PAGES = 60, TABLE_WIDTH = 37 };
    static float q[MOST], keys[MOST], values[MOST], out[MOST], alone[MOST];
    int64_t table[ROWS * TABLE_WIDTH], table_rows[ROWS], contexts[ROWS], order[ROWS], starts[ROWS + 1], shared[ROWS];
    draw(q, ROWS * HEADS * dim, half), draw(keys, PAGES * dim, half), draw(values, PAGES * dim, half);
    for (int r = 0; r < ROWS; r++) {
        table_rows[r] = order[r] = r, contexts[r] = TABLE_WIDTH - r;
        for (int j = 0; j < TABLE_WIDTH; j++) table[r * TABLE_WIDTH + j] = j < 20 && r < 5 ? j : (r * 7 + j * 11) % PAGES;
    }
    Attention call = {.out = out, .q = q, .keys = keys, .values = values, .table = table, .table_rows = table_rows, .contexts = contexts,
                      .order = order, .starts = starts, .shared = shared, .width = TABLE_WIDTH, .heads = HEADS, .kv_heads = 1, .dim = dim,
                      .scaling = 0.3f};
    call.count = blocks(starts, shared, order, table, table_rows, contexts, ROWS, TABLE_WIDTH);
    check(call.count < ROWS, "rows that go together", dim, half);
    check(!attend(&call, half, 1), "attention's memory", dim, half);
    for (int r = 0; r < ROWS; r++) {
        Attention one = call;
        int64_t first[2] = {0, 1}, none = 0;
        one.out = alone, one.q = row(q, r * HEADS * dim, half), one.table_rows = table_rows + r, one.contexts = contexts + r, one.order = &none;
        one.starts = first, one.shared = &none, one.count = 1;
        attend(&one, half, 1);
        check(!memcmp(alone, row(out, r * HEADS * dim, half), HEADS * dim * (half ? 2 : 4)), "attention alone", dim, half);
        for (int h = 0; h < HEADS; h++) {
            double mixed[1024] = {0}, total = 0;
            for (int j = 0; j < contexts[r]; j++) {
                const int64_t page = table[r * TABLE_WIDTH + j];
                double score = 0;
                for (int d = 0; d < dim; d++) score += worth(q, (r * HEADS + h) * dim + d, half) * worth(keys, page * dim + d, half);
                const double weight = exp(score * call.scaling);
                total += weight;
                for (int d = 0; d < dim; d++) mixed[d] += weight * worth(values, page * dim + d, half);
            }
            for (int d = 0; d < dim; d++)
                check(near(worth(out, (r * HEADS + h) * dim + d, half), mixed[d] / total, 1, half), "attention", dim, half);
        }
    }
}

int main(void) {
    for (int half = 0; half < 2; half++) {
        products(19, 45, 37, half), products(1, 1, 1, half), products(40, 32, 64, half);
        single_rows(5, 37, half), single_rows(3, 64, half), single_rows(2, 1, half);
        attention(64, half), attention(32, half), attention(22, half), attention(2, half), attention(300, half);
    }
    printf("%d numbers at a time, %d faults\n", WIDTH, faults);
    return faults > 100 ? 100 : faults;
}
