// Codes of quantized weights and the values that they stand for. Codes, scales and values need no alignment
// beyond that of their type in C; nothing may overlap. The function has a plain Swift twin in Quantization.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What codes are: numbers by the bits of their exponent and mantissa, or whole numbers.
enum nibble_code_type {
  nibble_e4m3 = 0,
  nibble_e5m2 = 1,
  nibble_e2m1 = 2,
  nibble_e8m0 = 3,
  nibble_int8 = 4,
  nibble_unsigned = 5,
};

// (code - origin - zero) * scale for each of `count` codes. `origin` is that of nibble_unsigned, whose codes
// have 1 to 8 `bits`; the other types' widths are known. `group_size` codes share a scale and a zero, `lead`
// of the first group lie before the first code; `zeros` may be NULL.
void nibble_dequantize_codes(const uint8_t *codes, int32_t code_type, int32_t bits, float origin, size_t count,
                             const float *scales, const float *zeros, size_t group_size, size_t lead,
                             void *values, int32_t float_type);

#ifdef __cplusplus
}
#endif
