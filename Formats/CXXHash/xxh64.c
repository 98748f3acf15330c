// XXH64, the older sibling: one implementation is as fast as memory.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

#include "nibble_xxhash.h"

nibble_xxh64_state *nibble_xxh64_create(void) {
  XXH64_state_t *state = malloc(sizeof *state);
  if (state) XXH64_reset(state, 0);
  return (nibble_xxh64_state *)(void *)state;
}

void nibble_xxh64_destroy(nibble_xxh64_state *state) { free(state); }

void nibble_xxh64_reset(nibble_xxh64_state *state) { XXH64_reset((XXH64_state_t *)(void *)state, 0); }

void nibble_xxh64_update(nibble_xxh64_state *state, const void *bytes, size_t count) {
  if (count) XXH64_update((XXH64_state_t *)(void *)state, bytes, count);
}

uint64_t nibble_xxh64_digest(const nibble_xxh64_state *state) {
  return XXH64_digest((const XXH64_state_t *)(const void *)state);
}
