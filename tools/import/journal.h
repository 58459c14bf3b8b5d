/*
 * What an unfinished import has done: OUTPUT.partial/import.journal, one line per checkpoint. It is
 * also the lock that keeps a second import of the same output away.
 */
#pragma once

#include "tools/import/digest.h"

#define JOURNAL_NAME "import.journal"

enum { JOURNAL_MAX_FILES = 2048 };

/* How far a file is; results count whole tensors. */
struct journal_mark {
	size_t tensors;
	struct digest digest; /* .at: bytes of the file that are written, or digested */
};

struct journal {
	int fd;
	bool resumed; /* it held marks of this very import */
};

/*
 * Opens or makes the journal in `directory` and locks it. `identity` is the digest of everything
 * that the import depends on; marks of another import count for nothing. `results` and `sources`
 * start as they are and get the last marks. −EBUSY: another import writes there.
 */
int journal_open(const char *directory, const char *identity, struct journal_mark *results,
		 size_t result_count, struct journal_mark *sources, size_t source_count,
		 struct journal *ret, struct sana_error *error);
void journal_close(struct journal *journal);

/* Appends. The data that a mark speaks of must be on the disk before. */
int journal_add_result(struct journal *journal, size_t index, const struct journal_mark *mark);
int journal_add_source(struct journal *journal, size_t index, const struct journal_mark *mark);
