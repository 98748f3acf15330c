// Matrix products of the system's BLAS: Accelerate on macOS, OpenBLAS elsewhere.
//
// OpenBLAS is loaded when it is first used and not linked: loading it takes longer than listing the
// tensors of a model, and it reads the number of its threads and its choice of kernels from the
// environment at that moment, where both can still be set.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Loads the library. NULL when it can be used, else one line that says why not. Safe to call from
// several threads, and cheap after the first time. Everything below needs it to have succeeded.
const char *nibble_blas_load(void);

// The library in use, such as `OpenBLAS 0.3.21 (Cooperlake)`.
const char *nibble_blas_name(void);

// C = alpha * op(A) * op(B) + beta * C, row-major: op(A) is m × k, op(B) is k × n, and op transposes
// where asked to. The strides count values from one row to the next, as stored. Runs in the calling
// thread alone; several may call at once.
void nibble_sgemm(int transpose_a, int transpose_b, int32_t m, int32_t n, int32_t k, float alpha,
                  const float *a, int32_t a_stride, const float *b, int32_t b_stride, float beta,
                  float *c, int32_t c_stride);

#ifdef __cplusplus
}
#endif
