// The numeric inner loops of Nibble: pointers and counts in, no allocation, no input or output.
// Values are little-endian; pointers to void need no alignment. Each function has a plain Swift twin
// in Quantization, which says what it computes; here stand only the conventions of the call. The other
// headers have the kernels of ggml's blocks and of MLX's groups.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How values are stored; f64 only where it is said.
enum nibble_float_type { nibble_bf16 = 0, nibble_f16 = 1, nibble_f32 = 2, nibble_f64 = 3 };

// Which 16 levels.
enum nibble_code { nibble_nf4 = 0, nibble_fp4 = 1 };

// Quantizes `count` values. Returns the index of the first value that is not finite, or `count`; in
// the former case the outputs are unspecified.
size_t nibble_quantize(const void *values, int32_t float_type, size_t count, int32_t code,
                       size_t block_size, uint8_t *codes, float *absmax);

// Dequantizes the values `start` to `start + count` of what begins at `codes` and `absmax`.
void nibble_dequantize(const uint8_t *codes, const float *absmax, size_t start, size_t count,
                       int32_t code, size_t block_size, void *values, int32_t float_type);

// Quantizes absmax values in blocks of 256. `codes_by_position` has 65536 entries.
void nibble_quantize_absmax(const float *absmax, size_t count, float offset,
                            const uint8_t *codes_by_position, uint8_t *codes,
                            float *nested_absmax);

// Converts between different types. Returns the index of the first finite value that became an
// infinity, or `count`; in the former case the output is unspecified.
size_t nibble_convert(const void *values, int32_t from, int32_t to, size_t count, void *output);

// The same from doubles.
size_t nibble_narrow(const void *values, int32_t to, size_t count, void *output);

typedef struct {
  uint64_t zeros, nans, infinities;
  float minimum, maximum;
  // Value i is added to sum i % 8, whatever the width of the vectors.
  double sums[8], squares[8];
} nibble_statistics_result;

void nibble_statistics(const void *values, int32_t float_type, size_t count,
                       nibble_statistics_result *result);

typedef struct {
  // Sums of squares, before the addition; value i is added to sum i % 8.
  double values[8], changes[8];
  // The sum that was refused, in 32 bits.
  float refused;
} nibble_change_sums;

// output = values + delta, added in 32 bits and rounded once. The delta is first rounded to
// `delta_type`. Returns the index of the first result that is not finite, or `count`; in the former
// case the outputs but `refused` are unspecified.
size_t nibble_add_delta(const void *values, int32_t value_type, const float *delta,
                        int32_t delta_type, size_t count, void *output, int32_t output_type,
                        nibble_change_sums *sums);

typedef struct {
  uint64_t differing, undefined;
  double largest;
  // Pair i is added to sum i % 8, whatever the width of the vectors.
  double squares[8], reference_squares[8];
} nibble_difference_result;

// Compares `count` values of each side. Either type may be f64.
void nibble_difference(const void *a, int32_t a_type, const void *b, int32_t b_type, size_t count,
                       nibble_difference_result *result);

// `element_bytes` is 2, 4 or 8.
void nibble_transpose(const void *matrix, size_t rows, size_t columns, size_t element_bytes,
                      void *output);

// The instruction set in use.
const char *nibble_kernels_target(void);

// For tests: the instruction sets this machine can run, best first. Selecting one concerns the whole
// process; -1 selects the best again.
int32_t nibble_kernels_target_count(void);
const char *nibble_kernels_target_name(int32_t index);
void nibble_kernels_select_target(int32_t index);

#ifdef __cplusplus
}
#endif
