/*
 * The demo model editing moving pictures, through engine/sana.h alone: what goes in and what comes
 * out, side by side. Failures are assertions.
 */
#pragma once

#include "engine/sana.h"
#include "tests/common/moving_picture.h"

struct demo_clip {
	struct sana_stream *stream;
	const struct moving_picture *picture;
	int64_t first_frame; /* of the endless clip */
	uint64_t pushed, pulled;
	uint64_t kept;	 /* this many frames are kept, the newest ones (frame n at n % kept) */
	uint8_t *source; /* [kept][MOVING_BYTES] */
	uint8_t *edited; /* [kept][MOVING_BYTES] */
	struct sana_frame_info *info; /* [kept] */
};

struct sana_model *demo_model_open(const char *directory);
struct sana_prompt *demo_prompt_create(struct sana_model *model, const char *text);

/* first_chunk_latents 0: the model's default. Keeps `kept` frames; the prompt is set. */
struct demo_clip *demo_clip_open(struct sana_model *model, struct sana_prompt *prompt,
				 uint64_t seed, int first_chunk_latents,
				 const struct moving_picture *picture, int64_t first_frame,
				 uint64_t kept);
void demo_clip_close(struct demo_clip *clip);

/* Runs until frame number `frames` − 1 has come out. */
void demo_clip_run(struct demo_clip *clip, uint64_t frames);

const uint8_t *demo_clip_source(const struct demo_clip *clip, uint64_t frame);
const uint8_t *demo_clip_edited(const struct demo_clip *clip, uint64_t frame);
const struct sana_frame_info *demo_clip_info(const struct demo_clip *clip, uint64_t frame);
