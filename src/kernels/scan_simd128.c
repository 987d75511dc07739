/* The selective scan, SIMD128: the bits of the scalar kernels. Contracts: scan.h. */
#include "kernels/scan.h"
#include "kernels/v128.h"

FM_INLINE v128_t madd(v128_t a, v128_t b, v128_t sum) {
  return wasm_f32x4_add(wasm_f32x4_mul(a, b), sum);
}

/* The step for 4 * n_vectors (a constant, 1 or 4) values of the head, with their sums in
 * registers. */
FM_INLINE void step_columns(const float *x, const float *b, const float *c, fm_scan_factors factors,
                            float *h, float *y, size_t n_state, size_t stride, size_t n_vectors) {
  v128_t decay = wasm_f32x4_splat(factors.decay), dt = wasm_f32x4_splat(factors.dt), scaled[4],
         sum[4];
  for (size_t v = 0; v < n_vectors; v++) {
    scaled[v] = wasm_f32x4_mul(wasm_v128_load(x + 4 * v), dt);
    sum[v] = fm_zero();
  }
  FM_NO_UNROLL
  for (size_t n = 0; n < n_state; n++, h += stride) {
    v128_t in = wasm_v128_load32_splat(b + n), out = wasm_v128_load32_splat(c + n);
    for (size_t v = 0; v < n_vectors; v++) {
      v128_t state = madd(wasm_v128_load(h + 4 * v), decay, wasm_f32x4_mul(in, scaled[v]));
      wasm_v128_store(h + 4 * v, state);
      sum[v] = madd(out, state, sum[v]);
    }
  }
  v128_t d = wasm_f32x4_splat(factors.d);
  for (size_t v = 0; v < n_vectors; v++)
    wasm_v128_store(y + 4 * v, madd(d, wasm_v128_load(x + 4 * v), sum[v]));
}

/* The values at the end of a head that fill no vector. */
static __attribute__((noinline)) void step_rest(const float *x, const float *b, const float *c,
                                                fm_scan_factors factors, float *h, float *y,
                                                size_t n_state, size_t stride, size_t n_values) {
  for (size_t p = 0; p < n_values; p++) {
    float scaled = x[p] * factors.dt, sum = 0.0f, *at = h + p;
    FM_NO_UNROLL
    for (size_t n = 0; n < n_state; n++, at += stride) {
      *at = *at * factors.decay + b[n] * scaled;
      sum += c[n] * *at;
    }
    y[p] = sum + factors.d * x[p];
  }
}

static void step(const float *x, const float *b, const float *c, fm_scan_factors factors, float *h,
                 float *y, size_t n_state, size_t head_size) {
  size_t p = 0;
  FM_NO_UNROLL
  for (; p + 16 <= head_size; p += 16)
    step_columns(x + p, b, c, factors, h + p, y + p, n_state, head_size, 4);
  FM_NO_UNROLL
  for (; p + 4 <= head_size; p += 4)
    step_columns(x + p, b, c, factors, h + p, y + p, n_state, head_size, 1);
  if (p < head_size)
    step_rest(x + p, b, c, factors, h + p, y + p, n_state, head_size, head_size - p);
}

/* n_rows (1 or 4) x 4 * n_vectors (1 or 2) values of y in registers; both are constants. */
FM_INLINE void mix_patch(fm_strided a, const float *x, size_t x_stride, float *y, size_t y_stride,
                         size_t n_k, size_t n_rows, size_t n_vectors) {
  v128_t sum[4][2];
  for (size_t i = 0; i < n_rows; i++) {
    for (size_t v = 0; v < n_vectors; v++) sum[i][v] = wasm_v128_load(y + i * y_stride + 4 * v);
  }
  const float *factor = a.at;
  FM_NO_UNROLL
  for (size_t k = 0; k < n_k; k++, factor += a.col, x += x_stride) {
    v128_t first = wasm_v128_load(x), second = n_vectors > 1 ? wasm_v128_load(x + 4) : first;
    for (size_t i = 0; i < n_rows; i++) {
      v128_t four = wasm_v128_load32_splat(factor + i * a.row);
      sum[i][0] = madd(four, first, sum[i][0]);
      if (n_vectors > 1) sum[i][1] = madd(four, second, sum[i][1]);
    }
  }
  for (size_t i = 0; i < n_rows; i++) {
    for (size_t v = 0; v < n_vectors; v++) wasm_v128_store(y + i * y_stride + 4 * v, sum[i][v]);
  }
}

/* n_rows: 1 or 4, a constant. */
FM_INLINE void mix_rows(fm_strided a, const float *x, size_t x_stride, float *y, size_t y_stride,
                        size_t n_k, size_t n_cols, size_t n_rows) {
  size_t p = 0;
  FM_NO_UNROLL
  for (; p + 8 <= n_cols; p += 8) mix_patch(a, x + p, x_stride, y + p, y_stride, n_k, n_rows, 2);
  if (p + 4 <= n_cols) {
    mix_patch(a, x + p, x_stride, y + p, y_stride, n_k, n_rows, 1);
    p += 4;
  }
  if (p < n_cols) /* the columns at the end fill no vector */
    fm_scan__scalar.mix(a, x + p, x_stride, y + p, y_stride, n_rows, n_k, n_cols - p);
}

static void mix(fm_strided a, const float *x, size_t x_stride, float *y, size_t y_stride,
                size_t n_rows, size_t n_k, size_t n_cols) {
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_rows; i += 4, a.at += 4 * a.row)
    mix_rows(a, x, x_stride, y + i * y_stride, y_stride, n_k, n_cols, 4);
  FM_NO_UNROLL
  for (; i < n_rows; i++, a.at += a.row)
    mix_rows(a, x, x_stride, y + i * y_stride, y_stride, n_k, n_cols, 1);
}

const fm_scan_kernels fm_scan__simd128 = {.step = step, .mix = mix};
