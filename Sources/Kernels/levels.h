// The numbers of the two codes, in the order of rising value ("rank"). Quantization's FourBitCode
// derives the same from the levels; a test compares.
#pragma once
#include <stdint.h>

#include <limits>

namespace nibble {

struct Code {
  // What each code stands for.
  float levels[16];
  // A value has the rank n when it is greater than n midpoints. The last entry is padding.
  float midpoints[16];
  // The code of each rank.
  uint8_t codes[16];
  uint8_t zero_code;
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr Code kNF4 = {
    {-1.0f, -0x1.647362p-1f, -0x1.0cd66p-1f, -0x1.94654p-2f, -0x1.23449ap-2f, -0x1.7a6a7ep-3f,
     -0x1.74f0e2p-4f, 0.0f, 0x1.45f5fep-4f, 0x1.4995c6p-3f, 0x1.f809bap-3f, 0x1.5a0674p-2f,
     0x1.c3497p-2f, 0x1.200f56p-1f, 0x1.722766p-1f, 1.0f},
    {-0x1.b239bp-1f, -0x1.38a4ep-1f, -0x1.d709p-2f, -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
     -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f, 0x1.a0cfcp-3f,
     0x1.2b05a8p-2f, 0x1.8ea7f2p-2f, 0x1.00da08p-1f, 0x1.491b5ep-1f, 0x1.b913b4p-1f, kInfinity},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    7};

constexpr Code kFP4 = {
    {0.0f, 0x1.555556p-8f, 0x1.555556p-1f, 1.0f, 0x1.555556p-2f, 0.5f, 0x1.555556p-3f, 0.25f, 0.0f,
     -0x1.555556p-8f, -0x1.555556p-1f, -1.0f, -0x1.555556p-2f, -0.5f, -0x1.555556p-3f, -0.25f},
    {-0x1.aaaaacp-1f, -0x1.2aaaacp-1f, -0x1.aaaaacp-2f, -0x1.2aaaacp-2f, -0x1.aaaaacp-3f,
     -0x1.6p-4f, -0x1.555556p-9f, 0.0f, 0x1.555556p-9f, 0x1.6p-4f, 0x1.aaaaacp-3f,
     0x1.2aaaacp-2f, 0x1.aaaaacp-2f, 0x1.2aaaacp-1f, 0x1.aaaaacp-1f, kInfinity},
    {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3},
    0};

}  // namespace nibble
