/* Fork-join: the items of an operation are split into chunks, which the threads of a pool take one
 * after another. Modules without threads (FM_HAS_THREADS 0) run all items in the caller. */
#ifndef FM_THREADS_THREADS_H
#define FM_THREADS_THREADS_H

#include <stddef.h>
#include <stdint.h>

#define FM_MAX_THREADS 64

/* Runs the items begin <= i < end of a job on thread number `thread`; 0 is the caller. The results
 * must depend on the items only, neither on the thread nor on how items are split. A part must not
 * call fm_parallel. */
typedef void fm_part_fn(const void *job, size_t begin, size_t end, size_t thread);

/* The cost of an operation, in multiply-adds of an int8 product, about 1/30 ns each. */
typedef uint64_t fm_work;
enum {
  FM_WORK_SCALAR = 16,  /* a factor, without SIMD */
  FM_WORK_F32 = 2,      /* a multiply-add of floats */
  FM_WORK_COPY = 8,     /* a value added, copied or quantised as an activation */
  FM_WORK_CONVERT = 16, /* a value normed, converted or decoded */
  FM_WORK_EXP = 48,     /* a value whose exponential is taken */
  FM_WORK_SEARCH = 1000 /* a value quantised by search */
};

#if FM_HAS_THREADS
/* Runs all items, and returns when they are done. item_work: the cost of one. */
void fm_parallel(fm_part_fn *part, const void *job, size_t n_items, fm_work item_work);

/* Threads that a job may run on, the caller included. */
uint32_t fm_threads_in_use(void);
#else
static inline void fm_parallel(fm_part_fn *part, const void *job, size_t n_items,
                               fm_work item_work) {
  (void)item_work;
  part(job, 0, n_items, 0);
}
static inline uint32_t fm_threads_in_use(void) { return 1; }
#endif

#if FM_HAS_THREADS
/* Start, use and end of the pool. Contracts: fused.h, "Threads". */
void fm_pool_run(uint32_t thread);
void fm_pool_use(uint32_t n_threads, uint32_t fork_work, int may_sleep);
void fm_pool_stop(void);
void fm_pool_fail(void);
#endif

#endif
