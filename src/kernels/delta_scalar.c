/* The gated delta net, scalar: the reference for the SIMD kernels. Contracts: delta.h. */
#include "kernels/delta.h"

static void products(const fm_delta_product *p) {
  for (size_t m = 0; m < p->n_rows; m++) {
    float *y = p->y + m * p->y_row;
    for (size_t n = 0; n < p->n_cols; n++) y[n] = p->is_new ? 0.0f : y[n] * p->factor;
    for (size_t d = 0; d < p->depth; d++) {
      float a = p->a[m * p->a_row + d * p->a_col];
      const float *b = p->b + d * p->b_row;
      for (size_t n = 0; n < p->n_cols; n++) y[n] += a * b[n];
    }
  }
}

static void step(const fm_delta_token *t) {
  float r[FM_DELTA_SIZE_MAX];
  for (size_t c = 0; c < t->value_size; c++) r[c] = t->out[c] = 0.0f;
  for (size_t i = 0; i < t->key_size; i++) {
    const float *row = t->state + i * t->value_size;
    for (size_t c = 0; c < t->value_size; c++) r[c] += t->k[i] * row[c];
  }
  for (size_t c = 0; c < t->value_size; c++) r[c] = t->beta * (t->v[c] - t->decay * r[c]);
  for (size_t i = 0; i < t->key_size; i++) {
    float *row = t->state + i * t->value_size;
    for (size_t c = 0; c < t->value_size; c++) {
      row[c] = t->decay * row[c] + t->k[i] * r[c];
      t->out[c] += t->q[i] * row[c];
    }
  }
}

const fm_delta_kernels fm_delta__scalar = {.products = products, .step = step};
