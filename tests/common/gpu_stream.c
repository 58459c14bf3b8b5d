/* A stream of the demo model on a GPU. */
#include "tests/common/gpu_stream.h"

#include "base/util.h"
#include "tests/common/expected.h"

enum { ROW = 3 * GPU_STREAM_WIDTH, PICTURE = ROW * GPU_STREAM_HEIGHT };

int gpu_stream_model(struct sana_model **ret, struct sana_error *error)
{
	const struct sana_model_options options = { .directory = EXPECTED_DEMO,
						    .backend = "cuda",
						    .deterministic = true };

	*error = (struct sana_error){ 0 };
	return sana_model_open(&options, ret, error);
}

int gpu_stream_open(struct gpu_stream *s, struct sana_error *error)
{
	struct sana_stream_options options;
	uint64_t ticket;
	int r;

	*s = (struct gpu_stream){ 0 };
	r = gpu_stream_model(&s->model, error);
	if (r >= 0)
		r = sana_prompt_create(s->model, "a pencil sketch", &s->prompt, error);
	sana_stream_options_init(&options);
	options.width = GPU_STREAM_WIDTH;
	options.height = GPU_STREAM_HEIGHT;
	if (r >= 0)
		r = sana_stream_open(s->model, &options, &s->stream, error);
	if (r >= 0)
		r = sana_stream_set_prompt(s->stream, s->prompt, SANA_SWITCH_KEEP, &ticket, error);
	return r;
}

/* The stages that can run, and what comes out of them. */
static int settle(struct gpu_stream *s, struct sana_error *error)
{
	uint8_t rgb[PICTURE];
	struct sana_picture picture = { rgb, ROW, GPU_STREAM_WIDTH, GPU_STREAM_HEIGHT };
	struct sana_frame_info info;
	enum sana_stage stage;
	int r, pulled = 0;

	while ((r = sana_stream_step(s->stream, &stage, error)) > 0) {
		while ((r = sana_stream_pull(s->stream, &picture, &info, error)) > 0) {
			for (size_t i = 0; i < PICTURE; i++)
				s->digest = (s->digest ^ rgb[i]) * 0x100000001b3;
			pulled++;
		}
		if (r < 0)
			return r;
	}
	return r < 0 ? r : pulled;
}

int gpu_stream_run(struct gpu_stream *s, int frames, struct sana_error *error)
{
	uint8_t rgb[PICTURE];
	const struct sana_picture picture = { rgb, ROW, GPU_STREAM_WIDTH, GPU_STREAM_HEIGHT };
	const int64_t end = s->frames + frames;
	int r, pulled = 0;

	while (s->frames < end) {
		for (size_t i = 0; i < PICTURE; i++)
			rgb[i] = (uint8_t)(i / 3 + 5 * i % 3 + 7 * (size_t)s->frames);
		r = sana_stream_push(s->stream, &picture, s->frames + 1, error);
		if (r < 0)
			return r;
		s->frames += r;
		r = settle(s, error);
		if (r < 0)
			return r;
		pulled += r;
	}
	return pulled;
}

void gpu_stream_close(struct gpu_stream *s)
{
	(void)sana_stream_close(s->stream);
	(void)sana_prompt_unref(s->prompt);
	(void)sana_model_unref(s->model);
	*s = (struct gpu_stream){ 0 };
}
