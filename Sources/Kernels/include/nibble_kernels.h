#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
const char *nibble_kernels_target(void);
#ifdef __cplusplus
}
#endif
