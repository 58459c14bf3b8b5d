/*
 * A look at a SentencePiece file before the library sees it.
 *
 * The library trusts its files; this walks the protobuf wire format and refuses what could make it
 * read outside its tables, run for ever or take absurd amounts of memory.
 */
#pragma once

#include "base/error.h"

enum {
	TOKENIZER_MAX_BYTES = 64 << 20,
	TOKENIZER_MAX_PIECES = 1000000,
	TOKENIZER_MAX_PIECE_BYTES = 4096,
	TOKENIZER_MAX_CONTROL_PIECES = 1024,
	TOKENIZER_MAX_SELF_TEST_BYTES = 1 << 20,
};

/*
 * −EINVAL and an error "tokenizer.open" unless all of this holds: the wire format is well-formed to
 * the end; there are 1 to TOKENIZER_MAX_PIECES pieces; every piece is non-empty UTF-8 without NUL of
 * a known type with a finite score; exactly one is the unknown piece; settings of the training and of
 * the normaliser are there (a file cut off between fields would do without them, and read prompts
 * differently); no character map is used (identity normalisation, docs/model/text-encoder.md §2: the
 * library follows offsets inside a map unchecked).
 */
int tokenizer_check(const void *data, size_t size, struct sana_error *error);
