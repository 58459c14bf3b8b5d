/*
 * A stream of the demo model on the back end "cuda" with all that it needs, for tests of what goes wrong: nothing
 * here is an assertion, every call answers with what failed.
 */
#pragma once

#include "engine/sana.h"

enum { GPU_STREAM_WIDTH = 64, GPU_STREAM_HEIGHT = 48 };

struct gpu_stream {
	struct sana_model *model;
	struct sana_prompt *prompt;
	struct sana_stream *stream;
	int64_t frames;	 /* pushed */
	uint64_t digest; /* of all pictures that came out */
};

int gpu_stream_model(struct sana_model **ret, struct sana_error *error);

/* What was opened before a failure stays, to be closed. */
int gpu_stream_open(struct gpu_stream *s, struct sana_error *error);

/* So many frames in, all that is ready out: how many came out, or what failed. */
int gpu_stream_run(struct gpu_stream *s, int frames, struct sana_error *error);

void gpu_stream_close(struct gpu_stream *s);
