#include "nibble_blas.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRowMajor = 101, kAsStored = 111, kTransposed = 112 };

typedef void Sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int,
                   float, float *, int);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[256];
static char name[128];
static Sgemm *sgemm;

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
#else
#include <dlfcn.h>

static void *symbol(void *library, const char *symbol_name) {
  void *found = dlsym(library, symbol_name);
  if (found == NULL) snprintf(problem, sizeof(problem), "OpenBLAS has no '%s'", symbol_name);
  return found;
}

static void open_library(void) {
  // The work is cut into pieces that run in parallel already. A user's own setting stays.
  setenv("OPENBLAS_NUM_THREADS", "1", 0);
  setenv("OMP_NUM_THREADS", "1", 0);
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    const char *reason = dlerror();
    snprintf(problem, sizeof(problem),
             "OpenBLAS cannot be loaded, which multiplies the matrices (Debian's package "
             "libopenblas0): %s",
             reason == NULL ? "no reason given" : reason);
    return;
  }
  *(void **)&sgemm = symbol(library, "cblas_sgemm");
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
#endif

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
