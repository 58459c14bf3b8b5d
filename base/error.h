/*
 * One error: a code a program can match and one sentence a person can act on.
 *
 * Functions that fill an error return its code, so that `return sana_error_set(error, …)` reads
 * well. Every function accepts NULL for the error and then only returns the code.
 */
#pragma once

#include "base/util.h"

enum { SANA_ERROR_TEXT_BYTES = 512 };

struct sana_error {
	int code;			  /* negative errno; 0 while nothing failed */
	char name[48];			  /* stable name, "model.config", "prompt.too-long", … */
	char text[SANA_ERROR_TEXT_BYTES]; /* one sentence; says what to do where it can */
};

/*
 * Fills the error and returns `code`, which is negative. A text that does not fit ends in "…"; whatever it
 * was put together from, it is one line of valid UTF-8 (utf8_make_line).
 */
int sana_error_set(struct sana_error *error, int code, const char *name, const char *format, ...)
	_printf_(4, 5);

/* Puts "prefix: " in front of the text of an error that is set, keeps code and name. */
int sana_error_prefix(struct sana_error *error, const char *format, ...) _printf_(2, 3);

void sana_error_clear(struct sana_error *error);
