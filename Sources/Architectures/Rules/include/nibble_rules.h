#ifndef NIBBLE_RULES_H
#define NIBBLE_RULES_H

#include <stddef.h>

/// The text of rules.txt, embedded when this file is compiled.
const unsigned char *_Nonnull nibble_rules(size_t *_Nonnull count);

/// The text of contents.txt, likewise.
const unsigned char *_Nonnull nibble_contents(size_t *_Nonnull count);

#endif
