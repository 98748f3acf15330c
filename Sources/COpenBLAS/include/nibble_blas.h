// Matrix products and decompositions of the system's BLAS and LAPACK: Accelerate on macOS, OpenBLAS,
// which has both, elsewhere.
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

// The same for what follows: some builds of OpenBLAS come without LAPACK, and multiply all the same.
const char *nibble_lapack_load(void);

// What the decompositions answer besides LAPACK's own `info`, which is small: 0 for success.
enum { NIBBLE_NO_MEMORY = -1000, NIBBLE_BAD_SIZE = -1001 };

// A = Q R by Householder reflections: Q has orthonormal columns whatever the rank of A.
//
// a: `rows` × `columns`, column-major, rows >= columns >= 1; Q takes its place.
// r: columns × columns, column-major, zero below the diagonal.
int nibble_qr(int32_t rows, int32_t columns, float *a, float *r);

// A = U diag(values) Vᵀ, k = min(rows, columns) singular values, largest first.
//
// a: column-major; what it holds is lost.
// u: rows × k, vt: k × columns, column-major; both NULL when only the values are wanted.
int nibble_svd(int32_t rows, int32_t columns, float *a, float *values, float *u, float *vt);

// The upper R with A⁻¹ = RᵀR, row-major, zero below the diagonal.
//
// a: `size` × `size`, symmetric; R takes its place. Answers the row at which A turns out not to be
// positive definite, counted from its end and from 1; what it holds is lost then.
int nibble_inverse_factor(int32_t size, float *a);

// X R⁻¹ in the place of X, row-major: R upper, `size` × `size`, no zero on its diagonal, X `rows` × `size`.
void nibble_divide_upper(int32_t rows, int32_t size, const float *r, float *x);

#ifdef __cplusplus
}
#endif
