#include "ops/scratch.h"

static fm_scratch of_caller;

#if FM_HAS_THREADS
static fm_scratch *of_thread[FM_MAX_THREADS] = {&of_caller};

fm_scratch *fm_scratch_of(size_t thread) { return of_thread[thread]; }

void fm_scratch_give(size_t thread, void *memory) { of_thread[thread] = memory; }
#else
fm_scratch *fm_scratch_of(size_t thread) {
  (void)thread;
  return &of_caller;
}
#endif
