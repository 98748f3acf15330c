// Blocks of values as ggml stores them, one function each way for every kind that is met often. Blocks and
// values need no alignment; neither may overlap the other. Each function has a plain Swift twin in
// Quantization, which says how the block is laid out and what is computed.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// `blocks` holds `count` of them, whose values go to `values` one after the other.
void nibble_decode_q4_0(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q4_1(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q5_0(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q5_1(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q8_0(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q2_k(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q3_k(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q4_k(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q5_k(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_q6_k(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_iq4_nl(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_iq4_xs(const uint8_t *blocks, size_t count, float *values);
void nibble_decode_mxfp4(const uint8_t *blocks, size_t count, float *values);

// Encodes `rows` rows of `row_length` finite values, a multiple of the block's. `importance` has one weight
// for each column, or is NULL; kinds that have no use for it ignore it. A scale that is too large for 16-bit
// floating point is stored as an infinity.
void nibble_encode_q4_0(const float *values, size_t rows, size_t row_length, const float *importance,
                        uint8_t *output);
void nibble_encode_q4_1(const float *values, size_t rows, size_t row_length, const float *importance,
                        uint8_t *output);
void nibble_encode_q5_0(const float *values, size_t rows, size_t row_length, const float *importance,
                        uint8_t *output);
void nibble_encode_q5_1(const float *values, size_t rows, size_t row_length, const float *importance,
                        uint8_t *output);
void nibble_encode_q8_0(const float *values, size_t rows, size_t row_length, const float *importance,
                        uint8_t *output);
void nibble_encode_mxfp4(const float *values, size_t rows, size_t row_length, const float *importance,
                         uint8_t *output);

// The index of the first value that is NaN or infinite, or `count`.
size_t nibble_first_non_finite(const float *values, size_t count);

// The index of the first of `count` blocks of `size` bytes whose number of 16 bits at `half` is NaN or infinite, or `count`.
size_t nibble_first_overflow(const uint8_t *blocks, size_t count, size_t size, size_t half);

#ifdef __cplusplus
}
#endif
