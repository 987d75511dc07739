/* The runtime of modules that link no library: the end of the heap, for the allocator, and the
 * stack pointer, for JavaScript. The memory is grown here, so that such a module imports only its
 * memory. */
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE_BYTES 65536
#define FAILED ((uintptr_t)-1)

extern unsigned char __heap_base;
static uintptr_t end_of_heap;

void *sbrk(intptr_t bytes) {
  if (end_of_heap == 0) end_of_heap = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
  uintptr_t start = end_of_heap, end = start + (uintptr_t)bytes;
  uintptr_t n_pages = __builtin_wasm_memory_size(0),
            wanted = end / PAGE_BYTES + (end % PAGE_BYTES != 0);
  if (end < start && bytes > 0) return (void *)FAILED;
  if (wanted > n_pages && (uintptr_t)__builtin_wasm_memory_grow(0, wanted - n_pages) == FAILED)
    return (void *)FAILED;
  end_of_heap = end;
  return (void *)start;
}

/* The names are those that Emscripten exports; a thread sets its stack with the first one. */
void _emscripten_stack_restore(void *top);
void *_emscripten_stack_alloc(size_t bytes);
void *emscripten_stack_get_current(void);

#ifdef __wasm64__
/* The other modules' emmalloc takes no 64-bit sizes. dlmalloc does, but lacks a function of this
 * name. */
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

__asm__(".globaltype __stack_pointer, i64\n");
#else
__asm__(".globaltype __stack_pointer, i32\n");
#endif

void _emscripten_stack_restore(void *top) {
  __asm__ volatile("local.get %0\n"
                   "global.set __stack_pointer\n"
                   :
                   : "r"(top));
}

void *emscripten_stack_get_current(void) {
  void *top;
  __asm__ volatile("global.get __stack_pointer\n"
                   "local.set %0\n"
                   : "=r"(top));
  return top;
}

void *_emscripten_stack_alloc(size_t bytes) {
  uintptr_t top = ((uintptr_t)emscripten_stack_get_current() - bytes) & ~(uintptr_t)15;
  _emscripten_stack_restore((void *)top);
  return (void *)top;
}
