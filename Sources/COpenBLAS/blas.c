#include "nibble_blas.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRowMajor = 101, kAsStored = 111, kTransposed = 112, kUpper = 121, kNonUnit = 131, kRight = 142 };

typedef void Sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int,
                   float, float *, int);
typedef void Strsm(int, int, int, int, int, int, int, float, const float *, int, float *, int);

// LAPACK's Fortran symbols: everything by address, matrices column-major, and for each string its
// length behind the other arguments.
typedef void Sgeqrf(const int *, const int *, float *, const int *, float *, float *, const int *,
                    int *);
typedef void Sorgqr(const int *, const int *, const int *, float *, const int *, const float *,
                    float *, const int *, int *);
typedef void Sgesdd(const char *, const int *, const int *, float *, const int *, float *, float *,
                    const int *, float *, const int *, float *, const int *, int *, int *, size_t);

typedef void Spotrf(const char *, const int *, float *, const int *, int *, size_t);
typedef void Strtri(const char *, const char *, const int *, float *, const int *, int *, size_t, size_t);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_once_t lapack_once = PTHREAD_ONCE_INIT;
static char problem[256];
static char lapack_problem[256];
static char name[128];
static Sgemm *sgemm;
static Strsm *strsm;
static Sgeqrf *sgeqrf;
static Sorgqr *sorgqr;
static Sgesdd *sgesdd;
static Spotrf *spotrf;
static Strtri *strtri;

// Known answers in a shape like those of an adapter: some releases of OpenBLAS compute garbage on
// processors that are newer than they are.
static int product_is_right(void) {
  enum { kM = 37, kN = 131, kK = 64 };
  static float a[kM * kK], b[kK * kN], c[kM * kN];
  for (int i = 0; i < kM * kK; ++i) a[i] = (float)(i % 7 - 3);
  for (int i = 0; i < kK * kN; ++i) b[i] = (float)(i % 11 - 5);
  memset(c, 0, sizeof(c));
  sgemm(kRowMajor, kAsStored, kAsStored, kM, kN, kK, 1, a, kK, b, kN, 0, c, kN);
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) {
      // Small whole numbers: exact in any order of summation.
      float sum = 0;
      for (int k = 0; k < kK; ++k) sum += a[i * kK + k] * b[k * kN + j];
      if (sum != c[i * kN + j]) return 0;
    }
  }
  return 1;
}

#if defined(__APPLE__)
#define ACCELERATE_NEW_LAPACK
#include <Accelerate/Accelerate.h>

static void open_library(void) {
  sgemm = (Sgemm *)cblas_sgemm;
  snprintf(name, sizeof(name), "Accelerate");
}

static void find_lapack(void) {
  strsm = (Strsm *)cblas_strsm;
  sgeqrf = (Sgeqrf *)sgeqrf_;
  sorgqr = (Sorgqr *)sorgqr_;
  sgesdd = (Sgesdd *)sgesdd_;
  spotrf = (Spotrf *)spotrf_;
  strtri = (Strtri *)strtri_;
}
#else
#include <dlfcn.h>

static void *library;

static void *symbol(const char *symbol_name, char *message, size_t room) {
  void *found = dlsym(library, symbol_name);
  if (found == NULL) snprintf(message, room, "OpenBLAS has no '%s'", symbol_name);
  return found;
}

static void open_library(void) {
  // The work is cut into pieces that run in parallel already. A user's own setting stays.
  setenv("OPENBLAS_NUM_THREADS", "1", 0);
  setenv("OMP_NUM_THREADS", "1", 0);
  library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    const char *reason = dlerror();
    snprintf(problem, sizeof(problem),
             "OpenBLAS cannot be loaded, which multiplies the matrices (Debian's package "
             "libopenblas0): %s",
             reason == NULL ? "no reason given" : reason);
    return;
  }
  *(void **)&sgemm = symbol("cblas_sgemm", problem, sizeof(problem));
  if (sgemm == NULL) return;
  void (*set_threads)(int);
  *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
  if (set_threads != NULL) set_threads(1);
  char *(*config)(void);
  char *(*core)(void);
  *(void **)&config = dlsym(library, "openblas_get_config");
  *(void **)&core = dlsym(library, "openblas_get_corename");
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …": two words are enough.
  char version[64] = "OpenBLAS";
  if (config != NULL) {
    snprintf(version, sizeof(version), "%s", config());
    char *space = strchr(version, ' ');
    if (space != NULL && (space = strchr(space + 1, ' ')) != NULL) *space = 0;
  }
  snprintf(name, sizeof(name), "%s (%s)", version, core == NULL ? "unknown core" : core());
}

static void find_lapack(void) {
  *(void **)&strsm = symbol("cblas_strsm", lapack_problem, sizeof(lapack_problem));
  *(void **)&sgeqrf = symbol("sgeqrf_", lapack_problem, sizeof(lapack_problem));
  *(void **)&sorgqr = symbol("sorgqr_", lapack_problem, sizeof(lapack_problem));
  *(void **)&sgesdd = symbol("sgesdd_", lapack_problem, sizeof(lapack_problem));
  *(void **)&spotrf = symbol("spotrf_", lapack_problem, sizeof(lapack_problem));
  *(void **)&strtri = symbol("strtri_", lapack_problem, sizeof(lapack_problem));
}
#endif

// A length of workspace as LAPACK tells it: in a float, which may have been rounded down.
static int work_length(float told) {
  double length = ceil((double)told * (1 + FLT_EPSILON)) + 1;
  return length < INT_MAX ? (int)length : INT_MAX;
}

int nibble_qr(int32_t rows, int32_t columns, float *a, float *r) {
  int m = rows, n = columns, query = -1, status = 0;
  if (n < 1 || m < n) return NIBBLE_BAD_SIZE;
  float told = 0, told_q = 0, unused = 0;
  sgeqrf(&m, &n, a, &m, &unused, &told, &query, &status);
  if (status != 0) return status;
  sorgqr(&m, &n, &n, a, &m, &unused, &told_q, &query, &status);
  if (status != 0) return status;
  int length = work_length(told > told_q ? told : told_q);
  float *tau = malloc(sizeof(float) * (size_t)n);
  float *work = malloc(sizeof(float) * (size_t)length);
  if (tau == NULL || work == NULL) {
    status = NIBBLE_NO_MEMORY;
  } else {
    sgeqrf(&m, &n, a, &m, tau, work, &length, &status);
    for (size_t j = 0; status == 0 && j < (size_t)n; ++j) {
      for (size_t i = 0; i < (size_t)n; ++i) {
        r[j * (size_t)n + i] = i <= j ? a[j * (size_t)m + i] : 0;
      }
    }
    if (status == 0) sorgqr(&m, &n, &n, a, &m, tau, work, &length, &status);
  }
  free(tau);
  free(work);
  return status;
}

int nibble_svd(int32_t rows, int32_t columns, float *a, float *values, float *u, float *vt) {
  int m = rows, n = columns, query = -1, status = 0;
  int k = m < n ? m : n;
  if (k < 1) return NIBBLE_BAD_SIZE;
  const char *job = u == NULL ? "N" : "S";
  float told = 0, unused = 0;
  int *integers = malloc(sizeof(int) * 8 * (size_t)k);
  if (integers == NULL) return NIBBLE_NO_MEMORY;
  float *left = u == NULL ? &unused : u, *right = u == NULL ? &unused : vt;
  sgesdd(job, &m, &n, a, &m, values, left, &m, right, &k, &told, &query, integers, &status, 1);
  if (status == 0) {
    int length = work_length(told);
    float *work = malloc(sizeof(float) * (size_t)length);
    if (work == NULL) {
      status = NIBBLE_NO_MEMORY;
    } else {
      sgesdd(job, &m, &n, a, &m, values, left, &m, right, &k, work, &length, integers, &status, 1);
    }
    free(work);
  }
  free(integers);
  return status;
}

static void reverse(float *a, size_t count) {
  for (size_t i = 0, j = count; i + 1 < j; ++i) {
    float value = a[--j];
    a[j] = a[i];
    a[i] = value;
  }
}

int nibble_inverse_factor(int32_t size, float *a) {
  int n = size, status = 0;
  if (n < 1) return NIBBLE_BAD_SIZE;
  const size_t count = (size_t)n * (size_t)n;
  // Backwards A is L Lᵀ, L lower; forwards A is T Tᵀ, T upper, and its inverse RᵀR with R the inverse of T. What
  // LAPACK takes for upper, column by column, is lower, row by row.
  reverse(a, count);
  spotrf("U", &n, a, &n, &status, 1);
  if (status == 0) strtri("U", "N", &n, a, &n, &status, 1, 1);
  if (status != 0) return status;
  reverse(a, count);
  for (size_t i = 1; i < (size_t)n; ++i) memset(a + i * (size_t)n, 0, i * sizeof(float));
  return 0;
}

void nibble_divide_upper(int32_t rows, int32_t size, const float *r, float *x) {
  strsm(kRowMajor, kRight, kUpper, kAsStored, kNonUnit, rows, size, 1, r, size, x, size);
}

// A product of two matrices of rank 3 with small whole numbers, taken apart and put together again.
static int decompositions_are_right(void) {
  enum { kM = 40, kN = 24, kRank = 3 };
  static float a[kM * kN], copy[kM * kN], r[kN * kN], values[kN], u[kM * kN], vt[kN * kN];
  for (int j = 0; j < kN; ++j) {
    for (int i = 0; i < kM; ++i) {
      float sum = 0;
      for (int k = 0; k < kRank; ++k) {
        sum += (float)(((i * 5 + k) % 7 - 3) * ((j * 3 + k * k) % 5 - 2));
      }
      a[j * kM + i] = sum;
    }
  }
  float tolerance = 1e-3f;  // of values up to 18, singular values up to some 200
  memcpy(copy, a, sizeof(a));
  if (nibble_svd(kM, kN, copy, values, u, vt) != 0) return 0;
  if (!(values[0] >= values[1] && values[2] > 1 && values[kRank] < tolerance)) return 0;
  memcpy(copy, a, sizeof(a));
  if (nibble_qr(kM, kN, copy, r) != 0) return 0;
  for (int j = 0; j < kN; ++j) {
    for (int i = 0; i < kM; ++i) {
      float svd = 0, qr = 0;
      for (int k = 0; k < kN; ++k) svd += u[k * kM + i] * values[k] * vt[j * kN + k];
      for (int k = 0; k < kN; ++k) qr += copy[k * kM + i] * r[j * kN + k];
      if (!(fabsf(svd - a[j * kM + i]) < tolerance)) return 0;
      if (!(fabsf(qr - a[j * kM + i]) < tolerance)) return 0;
    }
    for (int i = 0; i < kN; ++i) {
      float product = 0;
      for (int k = 0; k < kM; ++k) product += copy[i * kM + k] * copy[j * kM + k];
      if (!(fabsf(product - (float)(i == j)) < tolerance)) return 0;
    }
  }
  return 1;
}

// Of a matrix whose factor is known: A⁻¹ = RᵀR with R = I + the numbers right of the diagonal.
static int factor_is_right(void) {
  enum { kN = 24 };
  static float a[kN * kN], r[kN * kN];
  // A = T Tᵀ with T the inverse of R = I - S, S the upper shift: T is all ones from the diagonal on.
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < kN; ++j) a[i * kN + j] = (float)(kN - (i > j ? i : j));
  }
  memcpy(r, a, sizeof(a));
  if (nibble_inverse_factor(kN, r) != 0) return 0;
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < kN; ++j) {
      const float expected = j == i ? 1 : (j == i + 1 ? -1 : 0);
      if (!(fabsf(r[i * kN + j] - expected) < 1e-3f)) return 0;
    }
  }
  // (I - S)⁻¹ has ones from the diagonal on: divided by R, the unit vectors are its rows.
  memset(a, 0, sizeof(a));
  for (int i = 0; i < kN; ++i) a[i * kN + i] = 1;
  nibble_divide_upper(kN, kN, r, a);
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < kN; ++j) {
      if (!(fabsf(a[i * kN + j] - (float)(j >= i)) < 1e-3f)) return 0;
    }
  }
  return 1;
}

static void load_lapack(void) {
  const char *reason = nibble_blas_load();
  if (reason != NULL) {
    snprintf(lapack_problem, sizeof(lapack_problem), "%s", reason);
    return;
  }
  find_lapack();
  if (lapack_problem[0] == 0 && !(decompositions_are_right() && factor_is_right())) {
    snprintf(lapack_problem, sizeof(lapack_problem),
             "%s decomposes matrices wrongly on this processor; set OPENBLAS_CORETYPE, to Haswell "
             "say",
             name);
  }
}

const char *nibble_lapack_load(void) {
  pthread_once(&lapack_once, load_lapack);
  return lapack_problem[0] == 0 ? NULL : lapack_problem;
}

static void load(void) {
  open_library();
  if (problem[0] == 0 && !product_is_right()) {
    snprintf(problem, sizeof(problem),
             "%s computes wrong products on this processor; set OPENBLAS_CORETYPE, to Haswell say",
             name);
  }
}

const char *nibble_blas_load(void) {
  pthread_once(&once, load);
  return problem[0] == 0 ? NULL : problem;
}

const char *nibble_blas_name(void) { return name; }

void nibble_sgemm(int transpose_a, int transpose_b, int32_t m, int32_t n, int32_t k, float alpha,
                  const float *a, int32_t a_stride, const float *b, int32_t b_stride, float beta,
                  float *c, int32_t c_stride) {
  sgemm(kRowMajor, transpose_a ? kTransposed : kAsStored, transpose_b ? kTransposed : kAsStored, m,
        n, k, alpha, a, a_stride, b, b_stride, beta, c, c_stride);
}
