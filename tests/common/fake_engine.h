/*
 * An engine without a model for tests of the pipeline: chunks of frames go in, their negatives come
 * out, after as much time asleep as is asked for. One per program: the table has no place for a context.
 */
#pragma once

#include "daemon/pipeline.h"

#include <stdatomic.h>

enum { FAKE_ENGINE_CHUNK = 64 };

struct fake_engine {
	int first_frames, chunk_frames;
	atomic_int_fast64_t frame_ns; /* of work per frame, asleep */
	atomic_int model_failures;    /* so many openings fail before one succeeds */
	const char *model_fault;      /* with this name; NULL: "model.weights" */
	atomic_int step_failures;     /* so many steps with work fail */
	const char *step_fault;	      /* with this name; NULL: "backend.failed" */
	bool overlaps; /* chunks are begun by one step and waited for by later ones */
	/* Steps, prompts, do not return while it is set; while they crawl they say that they live. */
	atomic_bool hangs, crawls, prompts_hang, prompts_crawl;
	atomic_bool refuses_prompts;
	atomic_int models, streams, prompts; /* that exist */
	atomic_uint_fast64_t opened, resets, pushed, pulled;
	atomic_int most_pushed; /* from one step to the next */
};

extern struct fake_engine fake_engine;
extern const struct pipeline_engine fake_engine_api;

/* Chunks of 24 after a first one of 33, no work, no failures. */
void fake_engine_init(void);
