#include <stdatomic.h>
#include <stdlib.h>

#include "implementation.h"

// -1 until first used. Racing threads find the same answer.
static _Atomic int selected = -1;

int nibble_xxh3_implementation_count(void) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) return 1;
  return __builtin_cpu_supports("avx512f") ? 3 : 2;
#else
  return 1;
#endif
}

static const nibble_xxh3_implementation *at(int index) {
#if defined(__x86_64__)
  if (index == 1) return &nibble_xxh3_avx2;
  if (index == 2) return &nibble_xxh3_avx512;
#endif
  (void)index;
  return &nibble_xxh3_baseline;
}

static const nibble_xxh3_implementation *implementation(void) {
  int index = atomic_load_explicit(&selected, memory_order_relaxed);
  if (index < 0) {
    index = nibble_xxh3_implementation_count() - 1;
    atomic_store_explicit(&selected, index, memory_order_relaxed);
  }
  return at(index);
}

const char *nibble_xxh3_implementation_name(int index) { return at(index)->name; }

void nibble_xxh3_select(int index) {
  int last = nibble_xxh3_implementation_count() - 1;
  atomic_store_explicit(&selected, index < 0 || index > last ? last : index, memory_order_relaxed);
}

nibble_xxh3_state *nibble_xxh3_create(void) {
  // xxhash aligns its state to 64 bytes; aligned_alloc wants a multiple of that.
  nibble_xxh3_state *state = aligned_alloc(64, (nibble_xxh3_state_size + 63) / 64 * 64);
  if (state) nibble_xxh3_reset(state);
  return state;
}

void nibble_xxh3_destroy(nibble_xxh3_state *state) { free(state); }
void nibble_xxh3_reset(nibble_xxh3_state *state) { implementation()->reset(state); }

void nibble_xxh3_update(nibble_xxh3_state *state, const void *bytes, size_t count) {
  if (count) implementation()->update(state, bytes, count);
}

uint64_t nibble_xxh3_digest64(const nibble_xxh3_state *state) {
  return implementation()->digest64(state);
}

nibble_xxh128 nibble_xxh3_digest128(const nibble_xxh3_state *state) {
  return implementation()->digest128(state);
}

uint64_t nibble_xxh3_64(const void *bytes, size_t count) {
  return implementation()->hash64(bytes, count);
}

nibble_xxh128 nibble_xxh3_128(const void *bytes, size_t count) {
  return implementation()->hash128(bytes, count);
}
