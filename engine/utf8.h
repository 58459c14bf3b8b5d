/* One character of UTF-8 at a time, strictly. */
#pragma once

#include "base/util.h"

/*
 * Decodes the first character of `length` ≥ 1 bytes. Returns its bytes (1–4), or −EINVAL for what is
 * not UTF-8: stray or missing continuation bytes, overlong forms, surrogates, above U+10FFFF.
 */
int utf8_next(const char *text, size_t length, uint32_t *ret_character);

/* White space as Unicode defines it (property White_Space), control characters included. */
bool utf8_is_space(uint32_t character);

/* Control characters: U+0000–U+001F and U+007F–U+009F. */
bool utf8_is_control(uint32_t character);
