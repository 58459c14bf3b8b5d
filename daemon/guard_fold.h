/* Prompts and deny list entries, folded so that texts a person reads alike compare equal. */
#pragma once

#include "base/error.h"

struct guard_fold; /* ICU's tables */

/* "guard.unicode": ICU's data is missing. */
int guard_fold_create(struct guard_fold **ret, struct sana_error *error);
struct guard_fold *guard_fold_destroy(struct guard_fold *fold); /* NULL accepted; returns NULL */

/*
 * UTF-8 to folded UTF-8: words of letters and digits, one space between, before and after them. The caller
 * frees it; NULL when memory is out or the text is not UTF-8.
 */
char *guard_fold_text(struct guard_fold *fold, const char *text);
