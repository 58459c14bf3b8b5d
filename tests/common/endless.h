/*
 * A stream that runs for very long through the public interface: flat memory, nothing allocated, all
 * finite, nothing lost. Failures are assertions.
 */
#pragma once

#include "engine/sana.h"

enum { ENDLESS_PROMPTS = 2 };

struct endless_options {
	struct sana_model *model;
	struct sana_prompt *prompt[ENDLESS_PROMPTS]; /* in turn, everything kept */
	int width, height;
	int chunks;	   /* run that many, */
	int64_t seconds;   /* or, when not 0, chunks until this time has passed */
	int switch_chunks; /* a new prompt every so many chunks */
	int rebase_latents;
	int report_chunks;	/* a line every so many chunks, */
	int64_t report_seconds; /* or, when not 0, every so many seconds */
	/* From allocations.h; allocated NULL: neither allocations nor memory are looked at. */
	void (*count)(bool on);
	uint64_t (*allocated)(void);
};

void endless_run(const struct endless_options *options);
