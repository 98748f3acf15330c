// Quantizers of ggml's K-quants and 4-bit non-linear types: 32-bit values in, ggml's block structs out.
// `values` holds rows of `row_length` finite values, a multiple of 256 (of 32 for IQ4_NL); `importance`
// is null or has a weight from 0 to 1e10 for each column; `output` needs no alignment. The
// 16-bit factor of a block is infinite where it is too great; the other bytes are then unspecified.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void nibble_encode_q2_k(const float *values, size_t rows, size_t row_length,
                        const float *importance, uint8_t *output);
void nibble_encode_q3_k(const float *values, size_t rows, size_t row_length,
                        const float *importance, uint8_t *output);
void nibble_encode_q4_k(const float *values, size_t rows, size_t row_length,
                        const float *importance, uint8_t *output);
void nibble_encode_q5_k(const float *values, size_t rows, size_t row_length,
                        const float *importance, uint8_t *output);
void nibble_encode_q6_k(const float *values, size_t rows, size_t row_length,
                        const float *importance, uint8_t *output);
void nibble_encode_iq4_nl(const float *values, size_t rows, size_t row_length,
                          const float *importance, uint8_t *output);
void nibble_encode_iq4_xs(const float *values, size_t rows, size_t row_length,
                          const float *importance, uint8_t *output);

#ifdef __cplusplus
}
#endif
