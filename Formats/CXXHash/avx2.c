#if defined(__x86_64__)
// System headers first: only xxhash's own functions shall carry the target attribute.
#include <immintrin.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define XXH_VECTOR 2 /* XXH_AVX2, not defined yet */
#define NAME "AVX2"
#define IMPLEMENTATION nibble_xxh3_avx2
#include "body.inc"
#pragma clang attribute pop
#endif
