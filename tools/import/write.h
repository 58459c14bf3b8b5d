/* Streaming one result file, piece by piece, with checkpoints. Inside of run.c. */
#pragma once

#include "tools/import/journal.h"
#include "tools/import/run.h"

struct writer {
	const struct plan *plan;
	const struct run_options *options;
	struct progress progress;
	struct journal journal;
	struct digest_thread thread; /* digests the sources meanwhile */
	struct journal_mark *source; /* what the journal knows of them */
	int directory;		     /* OUTPUT.partial */
	uint64_t unsaved_bytes;	     /* written since the last checkpoint */
	void *buffer;		     /* WRITE_BUFFER_BYTES */
};

enum { WRITE_BUFFER_BYTES = 8 << 20 };

/*
 * Goes on after `mark`, which is zeroed (but for an initialised digest) at the beginning and complete
 * at the end. Whatever happens, marks of finished tensors are in the journal.
 */
int write_result(struct writer *writer, size_t index, const struct out_file *out,
		 struct journal_mark *mark, struct sana_error *error);

/* Makes directory/path with `bytes` of data, on the disk unless no_sync. */
int write_small(struct writer *writer, const char *path, const void *data, size_t bytes,
		struct sana_error *error);

/* 0, or −EINTR when we are asked to stop. */
int write_stopped(struct writer *writer, struct sana_error *error);
