// What the compiler may assume of every machine of this architecture: SSE2, NEON or plain C.
#if defined(__x86_64__)
#define NAME "SSE2"
#elif defined(__ARM_NEON)
#define NAME "NEON"
#else
#define NAME "scalar"
#endif
#define IMPLEMENTATION nibble_xxh3_baseline
#include "body.inc"

const size_t nibble_xxh3_state_size = sizeof(XXH3_state_t);
