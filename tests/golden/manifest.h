/* Reading a manifest and the tensors beside it, strictly: either may be hostile. */
#pragma once

#include "tests/golden/golden.h"

enum { GOLDEN_TEXT_LIMIT = 64 << 20 }; /* bytes of a manifest or of a tensor file's header */

/* Fills manifest, config, tag, weights and expected of a zeroed g with path and error set. */
int golden_open(struct golden *g);

/* Accepts a half-opened one; leaves path, options and the books. */
void golden_close(struct golden *g);
