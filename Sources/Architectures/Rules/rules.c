#include "nibble_rules.h"

// Embedded by the C compiler: SwiftPM's own embedding makes an array literal of it, which takes the Swift
// compiler over a minute.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char rules[] = {
#embed "rules.txt"
};

static const unsigned char contents[] = {
#embed "contents.txt"
};

const unsigned char *nibble_rules(size_t *count) {
  *count = sizeof rules;
  return rules;
}

const unsigned char *nibble_contents(size_t *count) {
  *count = sizeof contents;
  return contents;
}
