// Groups of values as MLX stores them: the codes of all groups in one array, their scales and biases in
// others. Values, scales and biases need no alignment; nothing may overlap. Each function has a plain Swift
// twin in Quantization, which says how codes are packed and what is computed.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// `count` values are whole groups of `group_size`, 32, 64 or 128; `bits` is 2, 3, 4, 5, 6 or 8. Scales and
// biases are stored like the values. Returns the index of the first value of the first group that has a NaN
// or an infinity, or whose range is infinite, or `count`; in the former case the outputs are unspecified.
size_t nibble_quantize_groups(const void *values, int32_t float_type, size_t count, int32_t bits,
                              size_t group_size, uint8_t *packed, void *scales, void *biases);

// `float_type` is `scale_type` or f32.
void nibble_dequantize_groups(const uint8_t *packed, const void *scales, const void *biases,
                              int32_t scale_type, size_t count, int32_t bits, size_t group_size,
                              void *values, int32_t float_type);

// The same for groups of 32 four-bit floating point numbers with a power of two as scale, one byte each.
size_t nibble_quantize_mxfp4_groups(const void *values, int32_t float_type, size_t count,
                                    uint8_t *packed, uint8_t *scales);

void nibble_dequantize_mxfp4_groups(const uint8_t *packed, const uint8_t *scales, size_t count,
                                    void *values, int32_t float_type);

#ifdef __cplusplus
}
#endif
