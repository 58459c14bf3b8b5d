/* How far an import is: one line that is rewritten on a terminal, one every few seconds elsewhere. */
#pragma once

#include "base/util.h"

struct progress {
	bool quiet, terminal;
	uint64_t total, done; /* bytes to be written */
	uint64_t skipped;     /* of done: from an earlier run, so not part of the rate */
	int64_t started_ns, shown_ns;
};

int64_t progress_now_ns(void);
void progress_start(struct progress *progress, uint64_t total, uint64_t skipped, bool quiet);
/* `what` is the file that is being written. Prints when it is time. */
void progress_add(struct progress *progress, const char *what, uint64_t bytes);
/* Ends the line on a terminal. */
void progress_end(struct progress *progress);
double progress_seconds(const struct progress *progress);
