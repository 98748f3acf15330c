// What each instruction set's translation unit offers to dispatch.c.
#pragma once
#include "nibble_xxhash.h"

typedef struct {
  const char *name;
  void (*reset)(nibble_xxh3_state *);
  void (*update)(nibble_xxh3_state *, const void *, size_t);
  uint64_t (*digest64)(const nibble_xxh3_state *);
  nibble_xxh128 (*digest128)(const nibble_xxh3_state *);
  uint64_t (*hash64)(const void *, size_t);
  nibble_xxh128 (*hash128)(const void *, size_t);
} nibble_xxh3_implementation;

extern const nibble_xxh3_implementation nibble_xxh3_baseline;
#if defined(__x86_64__)
extern const nibble_xxh3_implementation nibble_xxh3_avx2;
extern const nibble_xxh3_implementation nibble_xxh3_avx512;
#endif

// Bytes of a state, the same for every instruction set.
extern const size_t nibble_xxh3_state_size;
