#include <string.h>

#include <algorithm>

#include "nibble_kernels.h"

namespace {

// A tile of both matrices fits the first-level cache, and a tile's row fills a cache line.
constexpr size_t kTile = 32;

template <class Element>
void Transpose(const uint8_t* matrix, size_t rows, size_t columns, uint8_t* output) {
  constexpr size_t size = sizeof(Element);
  for (size_t row0 = 0; row0 < rows; row0 += kTile) {
    const size_t row1 = std::min(rows, row0 + kTile);
    for (size_t column0 = 0; column0 < columns; column0 += kTile) {
      const size_t column1 = std::min(columns, column0 + kTile);
      for (size_t column = column0; column < column1; ++column) {
        for (size_t row = row0; row < row1; ++row) {
          Element element;
          memcpy(&element, matrix + (row * columns + column) * size, size);
          memcpy(output + (column * rows + row) * size, &element, size);
        }
      }
    }
  }
}

}  // namespace

void nibble_transpose(const void* matrix, size_t rows, size_t columns, size_t element_bytes,
                      void* output) {
  const auto* from = static_cast<const uint8_t*>(matrix);
  auto* to = static_cast<uint8_t*>(output);
  if (element_bytes == 2) return Transpose<uint16_t>(from, rows, columns, to);
  if (element_bytes == 4) return Transpose<uint32_t>(from, rows, columns, to);
  Transpose<uint64_t>(from, rows, columns, to);
}
