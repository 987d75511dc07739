/* The fork-join under ThreadSanitizer, with pthreads for workers: small jobs, compared with one
 * thread.
 *
 * fm_thread_tests N_JOBS SEED */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"

#define N_THREADS 4
#define N_COLS 512
#define MAX_ROWS 70
#define MAX_TOKENS 40
#define ROW_BYTES (N_COLS / 256 * 144) /* Q4_K */

static uint32_t state = 1;

static uint32_t below(uint32_t n) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % n;
}

static void *run(void *thread) {
  fm_thread_run(*(uint32_t *)thread);
  return NULL;
}

/* One operation of several, into y [MAX_TOKENS][N_COLS]. */
static int32_t operate(uint32_t kind, const uint8_t *w, float *x, float *y, uint32_t n_tokens,
                       uint32_t n_rows) {
  const fm_target targets[] = {
      {.type = FM_TYPE_Q4_K, .n_rows = n_rows, .w = w, .y = y},
      {.type = FM_TYPE_Q4_K, .n_rows = 3, .w = w, .y = y + MAX_TOKENS * MAX_ROWS}};
  const fm_attention shape = {.n_tokens = n_tokens,
                              .n_heads = 8,
                              .n_kv_heads = 4,
                              .head_size = 64,
                              .n_positions = n_tokens,
                              .kv_type = FM_KV_F32,
                              .causal = 1,
                              .scale = 0.125f};
  const fm_scan scan = {
      .n_tokens = n_tokens, .n_heads = 8, .n_groups = 2, .head_size = 48, .state_size = 32};
  switch (kind) {
  case 0:
    return fused_matmul(FM_TYPE_Q4_K, w, x, y, n_tokens, n_rows, N_COLS, FM_ACT_INT8);
  case 1:
    return fused_matmul(FM_TYPE_Q4_K, w, x, y, n_tokens, n_rows, N_COLS, FM_ACT_F32);
  case 2:
    return fused_rmsnorm_matmul(targets, 2, x, NULL, 1e-5f, n_tokens, N_COLS, FM_ACT_INT16);
  case 3:
    return fm_flash_attention(&shape, x, x, x, y);
  case 4:
    return fused_attention_score(x, x, y, n_tokens, n_tokens, 64, 0.125f, 1);
  case 5:
    return fm_rms_norm(x, NULL, y, n_tokens, N_COLS, 1e-5f);
  case 6:
    return fm_dequantize_rows(FM_TYPE_Q4_K, w, y, n_tokens, N_COLS);
  case 7:
    return fm_ssm_scan(&scan, x, x, x, x, x, y + MAX_TOKENS * N_COLS, y);
  default:
    return fm_gated(x, x, y, n_tokens * N_COLS, FM_GATE_SILU);
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int n_jobs = atoi(argv[1]);
  state = (uint32_t)strtoul(argv[2], NULL, 10) | 1;
  size_t y_bytes = 2 * MAX_TOKENS * N_COLS * sizeof(float);
  uint8_t *w = fm_alloc(MAX_ROWS * ROW_BYTES);
  float *x = fm_alloc(MAX_TOKENS * N_COLS * sizeof(float)), *one = fm_alloc(y_bytes),
        *many = fm_alloc(y_bytes);
  for (size_t i = 0; i < MAX_ROWS * ROW_BYTES; i++) w[i] = (uint8_t)below(60);
  for (size_t i = 0; i < MAX_TOKENS * N_COLS; i++) x[i] = (float)below(2000) / 1000 - 1;
  pthread_t threads[N_THREADS];
  uint32_t numbers[N_THREADS];
  for (uint32_t i = 1; i < N_THREADS; i++) {
    numbers[i] = i;
    if (!fm_thread_stack(i) || pthread_create(&threads[i], NULL, run, &numbers[i]) != 0) return 2;
  }
  int failures = 0, jobs = 0;
  for (; jobs < n_jobs; jobs++) {
    uint32_t kind = below(9), n_tokens = 1 + below(jobs % 3 ? 3 : MAX_TOKENS),
             n_rows = 1 + below(MAX_ROWS);
    memset(one, 0, y_bytes);
    memset(many, 0, y_bytes);
    fm_threads_use(1, 0, 1);
    int32_t expected = operate(kind, w, x, one, n_tokens, n_rows);
    /* Chunks of one item, or of as many as usual, with a shorter one at the end. */
    fm_threads_use(2 + below(N_THREADS - 1), below(2), (int32_t)below(2));
    int32_t status = operate(kind, w, x, many, n_tokens, n_rows);
    failures += status != FM_OK || expected != FM_OK || memcmp(one, many, y_bytes) != 0;
  }
  fm_threads_stop();
  for (uint32_t i = 1; i < N_THREADS; i++) pthread_join(threads[i], NULL);
  printf("%d jobs, %d failures\n", jobs, failures);
  return failures != 0;
}
