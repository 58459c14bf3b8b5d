/*
 * SentencePiece tokenizer behind a C interface (engine/tokenizer.cpp is the project's one C++ file).
 *
 * A tokenizer does not change once it is open: any number of threads may encode with it.
 */
#pragma once

#include "base/error.h"

struct tokenizer;

/*
 * −ENOENT, −EINVAL (not a SentencePiece model, or larger than 64 MiB; engine/tokenizer_check.h), or
 * what reading the file fails with. Error "tokenizer.open". That the vocabulary fits the text
 * encoder's is for the caller to compare.
 */
int tokenizer_open(const char *path, struct tokenizer **ret, struct sana_error *error);
void tokenizer_close(struct tokenizer *tokenizer); /* NULL accepted */

int tokenizer_pieces(const struct tokenizer *tokenizer); /* size of the vocabulary */
int tokenizer_bos(const struct tokenizer *tokenizer);	 /* −1 when the model has none */

/*
 * Piece ids of UTF-8 text (length bytes), without BOS or EOS, at most `capacity` of them.
 * Returns the number of pieces the text has, which may be more than were stored; −EINVAL, −ENOMEM.
 */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
		     int32_t *ids, int capacity);

/*
 * As above, but the text of a control or unknown piece that is typed literally ("<bos>") becomes
 * that piece, the longest first; what lies between is encoded on its own. The plain library encodes
 * the characters of such text (docs/model/text-encoder.md §2).
 */
int tokenizer_encode_literals(const struct tokenizer *tokenizer, const char *text, size_t length,
			      int32_t *ids, int capacity);
