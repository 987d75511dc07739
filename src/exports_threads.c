/* Exports: the pool of threads, in the modules that have one. Contracts: fused.h. */
#include <stdlib.h>

#include "checks.h"
#include "ops/scratch.h"
#include "threads/threads.h"

#define STACK_BYTES 0x10000 /* the size of the caller's stack; see CMakeLists.txt */

EXPORT void *fm_thread_stack(uint32_t thread) {
  if (thread == 0 || thread >= FM_MAX_THREADS) return NULL;
  size_t scratch_bytes = (sizeof(fm_scratch) + 63) & ~(size_t)63;
  unsigned char *memory = aligned_alloc(_Alignof(fm_scratch), scratch_bytes + STACK_BYTES);
  if (!memory) return NULL;
  fm_scratch_give(thread, memory);
  return memory + scratch_bytes + STACK_BYTES;
}

EXPORT void fm_thread_run(uint32_t thread) {
  if (thread > 0 && thread < FM_MAX_THREADS) fm_pool_run(thread);
}

EXPORT void fm_thread_failed(void) { fm_pool_fail(); }

EXPORT int32_t fm_threads_use(uint32_t n_threads, uint32_t fork_work, int32_t may_sleep) {
  if (n_threads == 0 || n_threads > FM_MAX_THREADS) return FM_ERR_SHAPE;
  fm_pool_use(n_threads, fork_work, may_sleep);
  return FM_OK;
}

EXPORT void fm_threads_stop(void) { fm_pool_stop(); }
