/*
 * UTF-8: one character at a time, strictly, and whole texts as others take them. sd-bus refuses a message
 * with a text that is not valid, and with noncharacters; systemd reads its datagrams by lines, and so do
 * people their logs.
 */
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

/* Code points that stand for no character, ever: U+FDD0–U+FDEF, U+FFFE, U+FFFF, U+1FFFE, … */
bool utf8_is_noncharacter(uint32_t character);

/* Valid, without noncharacters: may go over the bus. */
bool utf8_is_text(const char *text);

/* The same without control characters: one line. */
bool utf8_is_line(const char *text);

/*
 * Makes a line of any text, in place: a character that was cut at the end goes, every other byte that is
 * part of no character becomes '?', and so does every control character and noncharacter. Never longer.
 */
void utf8_make_line(char *text);

/* Of the first `most` bytes those before a character that would be cut: for "%.*s". */
int utf8_cut(const char *text, int most);
