// XXH3 of the distribution's <xxhash.h>, compiled once per instruction set and picked at run time.
// One streaming state serves both widths: XXH3-64 and XXH128 differ only in how they finish.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nibble_xxh3_state nibble_xxh3_state;

typedef struct {
  uint64_t high;
  uint64_t low;
} nibble_xxh128;

// The state after no bytes at all, or NULL when there is no memory.
nibble_xxh3_state *nibble_xxh3_create(void);
void nibble_xxh3_destroy(nibble_xxh3_state *state);
void nibble_xxh3_reset(nibble_xxh3_state *state);
void nibble_xxh3_update(nibble_xxh3_state *state, const void *bytes, size_t count);
// Digests of everything so far; the state can be updated further.
uint64_t nibble_xxh3_digest64(const nibble_xxh3_state *state);
nibble_xxh128 nibble_xxh3_digest128(const nibble_xxh3_state *state);

uint64_t nibble_xxh3_64(const void *bytes, size_t count);
nibble_xxh128 nibble_xxh3_128(const void *bytes, size_t count);

// Implementations this machine can run, slowest first; the last one is used unless a test selects
// another. All give the same digests, and a state may move from one to the other.
int nibble_xxh3_implementation_count(void);
const char *nibble_xxh3_implementation_name(int index);
void nibble_xxh3_select(int index);

// XXH64 with seed 0, as a stream.
typedef struct nibble_xxh64_state nibble_xxh64_state;
nibble_xxh64_state *nibble_xxh64_create(void);
void nibble_xxh64_destroy(nibble_xxh64_state *state);
void nibble_xxh64_reset(nibble_xxh64_state *state);
void nibble_xxh64_update(nibble_xxh64_state *state, const void *bytes, size_t count);
uint64_t nibble_xxh64_digest(const nibble_xxh64_state *state);

#ifdef __cplusplus
}
#endif
