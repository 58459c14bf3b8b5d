/* Carrying a plan out: results are streamed into OUTPUT.partial, which becomes OUTPUT at the end. */
#pragma once

#include "tools/import/plan.h"
#include "tools/import/progress.h"

struct run_options {
	const char *output;
	bool quiet;
	bool (*stopped)(void); /* asked between pieces: whether a signal said to stop */
	bool no_sync; /* do not wait for the disk: quicker, but a power cut may harm the result */
};

struct run_result {
	char *manifest; /* JSON text, to be freed */
	double seconds;
	uint64_t bytes, resumed_bytes;
};

/*
 * −EINTR: `stopped` said so. After that, and after most failures, the same call goes on where this
 * one stopped.
 */
int run_plan(const struct plan *plan, const struct run_options *options, struct run_result *ret,
	     struct sana_error *error);

/* manifest.c. `result` are the digests of the results in the order of run_results. */
struct source_digest {
	const char *path;
	uint64_t bytes;
	char sha256[65];
	enum part_kind kind; /* PART_COUNT: of the whole model */
};

struct result_digest {
	const char *path;
	uint64_t bytes;
	char sha256[65];
	enum part_kind kind;
};

char *manifest_make(const struct plan *plan, const struct source_digest *sources,
		    size_t source_count, const struct result_digest *results, size_t result_count);
