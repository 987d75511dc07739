/* Sleep until a word changes. Natively, for tests, one lock and one condition serve all words. */
#ifndef FM_THREADS_FUTEX_H
#define FM_THREADS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

#ifdef __wasm__
/* Sleeps while *word is `expected`; may return without a reason. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
  __builtin_wasm_memory_atomic_wait32((int *)word, (int)expected, -1);
}

/* Wakes up to n threads that sleep on a word, which the caller has changed. */
static inline void futex_wake(_Atomic uint32_t *word, uint32_t n) {
  __builtin_wasm_memory_atomic_notify((int *)word, n);
}
#else
#include <pthread.h>

static pthread_mutex_t futex_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t futex_changed = PTHREAD_COND_INITIALIZER;

static inline void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
  pthread_mutex_lock(&futex_lock);
  if (atomic_load(word) == expected) pthread_cond_wait(&futex_changed, &futex_lock);
  pthread_mutex_unlock(&futex_lock);
}

static inline void futex_wake(_Atomic uint32_t *word, uint32_t n) {
  (void)word, (void)n;
  pthread_mutex_lock(&futex_lock);
  pthread_cond_broadcast(&futex_changed);
  pthread_mutex_unlock(&futex_lock);
}
#endif

#endif
