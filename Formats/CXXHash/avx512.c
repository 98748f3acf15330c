#if defined(__x86_64__)
// System headers first: only xxhash's own functions shall carry the target attribute.
#include <immintrin.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#define XXH_VECTOR 3 /* XXH_AVX512, not defined yet */
#define NAME "AVX-512"
#define IMPLEMENTATION nibble_xxh3_avx512
#include "body.inc"
#pragma clang attribute pop
#endif
