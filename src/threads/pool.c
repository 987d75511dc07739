/* The pool: threads sleep in a futex until there is work, and all that are awake take chunks.
 *
 *   caller                                   threads
 *   job = ..                                 sleep while generation == seen, after a short spin
 *   unfinished = unclaimed = n_chunks        unclaimed > 0: unclaimed -= 1   (compare and swap)
 *   generation += 1, wake sleepers             run chunk number n_chunks - unclaimed
 *   takes chunks like the others               unfinished -= 1; the last one wakes the caller
 *   sleeps while unfinished > 0
 *
 * The caller waits for chunks, never for threads: a thread that wakes late finds nothing unclaimed,
 * or claims a chunk of a newer job and may then run it. The job is read only after a claim, and
 * written only while nothing is unfinished, so no thread can hold parts of two jobs. */
#include <stdatomic.h>
#include <stdbool.h>

#include "threads/futex.h"
#include "threads/threads.h"

/* For less work (some 9 microseconds), waking threads takes longer than the work itself. */
#define FORK_WORK (1u << 18)
/* The least work of a chunk, and the most chunks of a job for each thread: enough of them that a
 * slow core can do fewer. */
#define CHUNK_WORK (1u << 17)
#define CHUNKS_PER_THREAD 32

/* Turns of the spinning loop, some 30 microseconds: longer than the pause between a layer's
 * operations. */
#define SPIN_TURNS 10000

/* Words that threads write have cache lines of their own. */
static struct {
  _Alignas(64) _Atomic uint32_t generation; /* futex: changes when there is work, or the end */
  _Atomic uint32_t n_asleep, n_in_use, is_stopped;
  _Alignas(64) _Atomic uint32_t unclaimed;
  _Alignas(64) _Atomic uint32_t unfinished; /* futex of the caller */
  _Atomic uint32_t caller_sleeps, is_broken;
  _Alignas(64) uint32_t fork_work;
  bool may_sleep;
} pool = {.n_in_use = 1, .fork_work = FORK_WORK};

static struct {
  fm_part_fn *part;
  const void *context;
  size_t n_items, chunk_items;
  uint32_t n_chunks;
} job;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

static bool claim(uint32_t *left) {
  *left = atomic_load(&pool.unclaimed);
  while (*left > 0) {
    if (atomic_compare_exchange_weak(&pool.unclaimed, left, *left - 1)) return true;
  }
  return false;
}

static void finish_chunk(void) {
  if (atomic_fetch_sub(&pool.unfinished, 1) == 1 && atomic_load(&pool.caller_sleeps))
    futex_wake(&pool.unfinished, 1);
}

static void take_chunks(size_t thread) {
  uint32_t left;
  while (claim(&left)) {
    size_t begin = (job.n_chunks - left) * job.chunk_items;
    job.part(job.context, begin, min_size(begin + job.chunk_items, job.n_items), thread);
    finish_chunk();
  }
}

static bool spin_while(_Atomic uint32_t *word, uint32_t value) {
  for (uint32_t i = 0; i < SPIN_TURNS; i++) {
    if (atomic_load_explicit(word, memory_order_relaxed) != value) return false;
  }
  return true;
}

void fm_pool_run(uint32_t thread) {
  while (!atomic_load(&pool.is_stopped)) {
    uint32_t seen = atomic_load(&pool.generation); /* later work changes it */
    if (thread < atomic_load(&pool.n_in_use)) take_chunks(thread);
    if (!spin_while(&pool.generation, seen)) continue;
    atomic_fetch_add(&pool.n_asleep, 1);
    while (atomic_load(&pool.generation) == seen) futex_wait(&pool.generation, seen);
    atomic_fetch_sub(&pool.n_asleep, 1);
  }
}

static void wake(void) {
  atomic_fetch_add(&pool.generation, 1);
  if (atomic_load(&pool.n_asleep) > 0) futex_wake(&pool.generation, FM_MAX_THREADS);
}

static void wait_for_others(void) {
  while (atomic_load(&pool.unfinished) > 0) {
    uint32_t left = atomic_load(&pool.unfinished);
    if (left == 0 || !spin_while(&pool.unfinished, left) || !pool.may_sleep) continue;
    atomic_store(&pool.caller_sleeps, 1);
    left = atomic_load(&pool.unfinished);
    if (left > 0) futex_wait(&pool.unfinished, left);
    atomic_store(&pool.caller_sleeps, 0);
  }
  if (!atomic_exchange(&pool.is_broken, 0)) return;
  atomic_store(&pool.n_in_use, 1);
  __builtin_trap(); /* as if the caller had run that chunk */
}

void fm_parallel(fm_part_fn *part, const void *context, size_t n_items, fm_work item_work) {
  size_t n_threads = fm_threads_in_use();
  fm_work work = item_work * n_items;
  size_t smallest =
      item_work < CHUNK_WORK ? (size_t)(CHUNK_WORK / max_size((size_t)item_work, 1)) : 1;
  if (pool.fork_work == 0) smallest = 1;
  size_t chunk_items = max_size(smallest, n_items / (n_threads * CHUNKS_PER_THREAD));
  if (n_threads == 1 || work < pool.fork_work || n_items <= chunk_items) {
    part(context, 0, n_items, 0);
    return;
  }
  job.part = part;
  job.context = context;
  job.n_items = n_items;
  job.chunk_items = chunk_items;
  job.n_chunks = (uint32_t)((n_items + chunk_items - 1) / chunk_items);
  atomic_store(&pool.unfinished, job.n_chunks);
  atomic_store(&pool.unclaimed, job.n_chunks);
  wake();
  take_chunks(0);
  wait_for_others();
}

uint32_t fm_threads_in_use(void) {
  return atomic_load_explicit(&pool.n_in_use, memory_order_relaxed);
}

void fm_pool_use(uint32_t n_threads, uint32_t fork_work, int may_sleep) {
  atomic_store(&pool.n_in_use, n_threads);
  pool.fork_work = fork_work == UINT32_MAX ? FORK_WORK : fork_work;
  pool.may_sleep = may_sleep != 0;
}

void fm_pool_stop(void) {
  atomic_store(&pool.n_in_use, 1);
  atomic_store(&pool.is_stopped, 1);
  wake();
}

void fm_pool_fail(void) {
  atomic_store(&pool.is_broken, 1);
  finish_chunk();
}
