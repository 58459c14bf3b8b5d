/* The demo model editing moving pictures. */
#include "tests/common/demo_clip.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/util.h"

enum { FRAME_NS = 41666667 };

struct sana_model *demo_model_open(const char *directory)
{
	const struct sana_model_options options = { .directory = directory };
	struct sana_error error = { 0 };
	struct sana_model *model;

	if (sana_model_open(&options, &model, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return model;
}

struct sana_prompt *demo_prompt_create(struct sana_model *model, const char *text)
{
	struct sana_error error = { 0 };
	struct sana_prompt *prompt;

	if (sana_prompt_create(model, text, &prompt, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return prompt;
}

struct demo_clip *demo_clip_open(struct sana_model *model, struct sana_prompt *prompt,
				 uint64_t seed, int first_chunk_latents,
				 const struct moving_picture *picture, int64_t first_frame,
				 uint64_t kept)
{
	struct demo_clip *clip = calloc(1, sizeof(*clip));
	struct sana_stream_options options;
	struct sana_error error = { 0 };
	uint64_t ticket;

	assert_non_null(clip);
	*clip = (struct demo_clip){
		.picture = picture,
		.first_frame = first_frame,
		.kept = kept,
		.source = malloc(kept * MOVING_BYTES),
		.edited = malloc(kept * MOVING_BYTES),
		.info = calloc(kept, sizeof(*clip->info)),
	};
	assert_true(clip->source && clip->edited && clip->info);
	sana_stream_options_init(&options);
	options.seed = seed;
	options.first_chunk_latents = first_chunk_latents;
	if (sana_stream_open(model, &options, &clip->stream, &error) < 0 ||
	    sana_stream_set_prompt(clip->stream, prompt, SANA_SWITCH_INVALID, &ticket, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return clip;
}

void demo_clip_close(struct demo_clip *clip)
{
	if (!clip)
		return;
	(void)sana_stream_close(clip->stream);
	free(clip->source);
	free(clip->edited);
	free(clip->info);
	free(clip);
}

static struct sana_picture slot(uint8_t *frames, uint64_t frame, uint64_t kept)
{
	return (struct sana_picture){
		.rgb = frames + frame % kept * MOVING_BYTES,
		.row_bytes = 3 * (size_t)MOVING_WIDTH,
		.width = MOVING_WIDTH,
		.height = MOVING_HEIGHT,
	};
}

/* One frame in, if there is room for it here and in the stream. */
static bool push(struct demo_clip *clip)
{
	const struct sana_picture picture = slot(clip->source, clip->pushed, clip->kept);
	struct sana_error error = { 0 };
	int r;

	if (clip->pushed - clip->pulled >= clip->kept)
		return false;
	moving_picture_frame(clip->picture, clip->first_frame + (int64_t)clip->pushed, picture.rgb);
	r = sana_stream_push(clip->stream, &picture, (int64_t)clip->pushed * FRAME_NS, &error);
	if (r < 0)
		fail_msg("%s: %s", error.name, error.text);
	clip->pushed += (uint64_t)r;
	return r > 0;
}

static void pull(struct demo_clip *clip, uint64_t frames)
{
	struct sana_error error = { 0 };
	int r = 1;

	while (r > 0 && clip->pulled < frames) {
		struct sana_picture picture = slot(clip->edited, clip->pulled, clip->kept);
		struct sana_frame_info *info = &clip->info[clip->pulled % clip->kept];

		r = sana_stream_pull(clip->stream, &picture, info, &error);
		if (r < 0)
			fail_msg("%s: %s", error.name, error.text);
		if (r > 0)
			assert_true(info->frame == clip->pulled);
		clip->pulled += (uint64_t)r;
	}
}

void demo_clip_run(struct demo_clip *clip, uint64_t frames)
{
	struct sana_error error = { 0 };
	enum sana_stage stage;
	int r;

	for (;;) {
		pull(clip, frames);
		if (clip->pulled >= frames)
			return;
		r = sana_stream_step(clip->stream, &stage, &error);
		if (r < 0)
			fail_msg("%s: %s", error.name, error.text);
		if (r == 0 && !push(clip))
			fail_msg("no stage can run and no frame goes in after frame %llu",
				 (unsigned long long)clip->pulled);
	}
}

static size_t kept_at(const struct demo_clip *clip, uint64_t frame)
{
	assert_true(frame < clip->pulled && frame + clip->kept >= clip->pushed);
	return frame % clip->kept;
}

const uint8_t *demo_clip_source(const struct demo_clip *clip, uint64_t frame)
{
	return clip->source + kept_at(clip, frame) * MOVING_BYTES;
}

const uint8_t *demo_clip_edited(const struct demo_clip *clip, uint64_t frame)
{
	return clip->edited + kept_at(clip, frame) * MOVING_BYTES;
}

const struct sana_frame_info *demo_clip_info(const struct demo_clip *clip, uint64_t frame)
{
	return &clip->info[kept_at(clip, frame)];
}
