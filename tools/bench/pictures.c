/* sana-bench --self-test: one short stream of a small model on a GPU and on the CPU, picture by picture. */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

enum { CHUNKS = 4, MOST_FRAMES = 64 };

struct shown {
	struct sana_model *model;
	struct sana_prompt *prompt;
	struct sana_stream *stream;
	int width, height, frames;
	uint8_t *in, *out; /* one picture; [MOST_FRAMES] of them */
};

static void shown_finish(struct shown *s)
{
	(void)sana_stream_close(s->stream);
	(void)sana_prompt_unref(s->prompt);
	(void)sana_model_unref(s->model);
	free(s->in);
	free(s->out);
}

/* Smooth shapes that move, so that nothing is constant and nothing is noise. */
static void picture_draw(const struct shown *s, int t)
{
	for (int y = 0; y < s->height; y++)
		for (int x = 0; x < s->width; x++) {
			uint8_t *p = s->in + 3 * ((size_t)y * (size_t)s->width + (size_t)x);

			p[0] = (uint8_t)(127.5 + 100 * sin(0.05 * x + 0.11 * t));
			p[1] = (uint8_t)(127.5 + 100 * sin(0.07 * y - 0.05 * t));
			p[2] = (uint8_t)(127.5 + 100 * sin(0.03 * (x + y) + 0.2 * t));
		}
}

static int shown_open(struct shown *s, const char *directory, const char *backend,
		      struct sana_error *error)
{
	const struct sana_model_options options = { .directory = directory, .backend = backend };
	struct sana_stream_options stream;
	const struct model_config *config;
	uint64_t ticket;
	size_t picture;
	int r = sana_model_open(&options, &s->model, error);

	if (r < 0)
		return r;
	config = sana_model_config(s->model);
	s->width = config->stream.width;
	s->height = config->stream.height;
	picture = 3 * (size_t)s->width * (size_t)s->height;
	s->in = malloc(picture);
	s->out = malloc(MOST_FRAMES * picture);
	if (!s->in || !s->out)
		return -ENOMEM;
	sana_stream_options_init(&stream);
	stream.seed = 11;
	r = sana_stream_open(s->model, &stream, &s->stream, error);
	if (r >= 0)
		r = sana_prompt_create(s->model, "turn day into night", &s->prompt, error);
	if (r >= 0)
		r = sana_stream_set_prompt(s->stream, s->prompt, SANA_SWITCH_INVALID, &ticket,
					   error);
	return r;
}

static int frames_take(struct shown *s, struct sana_error *error)
{
	const size_t row = 3 * (size_t)s->width;
	struct sana_frame_info info;
	enum sana_stage stage;
	int r;

	while ((r = sana_stream_step(s->stream, &stage, error)) > 0)
		while (s->frames < MOST_FRAMES) {
			struct sana_picture to = { s->out + (size_t)s->frames * row *
								    (size_t)s->height,
						   row, s->width, s->height };

			r = sana_stream_pull(s->stream, &to, &info, error);
			if (r <= 0)
				break;
			s->frames++;
		}
	return r;
}

static int shown_run(struct shown *s, struct sana_error *error)
{
	const struct sana_picture in = { s->in, 3 * (size_t)s->width, s->width, s->height };
	struct sana_statistics statistics;
	int r = 0;

	for (int t = 0; r >= 0; t++) {
		sana_stream_statistics(s->stream, &statistics);
		if (statistics.chunks >= CHUNKS || s->frames == MOST_FRAMES)
			return 0;
		if (statistics.failures || statistics.chunks_dropped)
			return sana_error_set(error, -EIO, "bench.dropped",
					      "a chunk was dropped: values were not finite");
		picture_draw(s, t);
		while ((r = sana_stream_push(s->stream, &in, t + 1, error)) == 0) {
			r = frames_take(s, error);
			if (r < 0)
				return r;
		}
		if (r >= 0)
			r = frames_take(s, error);
	}
	return r;
}

int bench_pictures_compare(const char *directory, const char *backend, struct bench_pictures *ret,
			   struct sana_error *error)
{
	const char *const backends[2] = { backend, "cpu" };
	struct shown s[2] = { 0 };
	double sum = 0;
	size_t count;
	int r = access(directory, R_OK) < 0 ? -ENOENT : 0;

	for (int i = 0; i < 2 && r >= 0; i++) {
		r = shown_open(&s[i], directory, backends[i], error);
		if (r >= 0)
			r = shown_run(&s[i], error);
	}
	if (r >= 0 && (!s[0].frames || s[0].frames != s[1].frames))
		r = sana_error_set(error, -EIO, "bench.frames", "%d frames came instead of %d",
				   s[0].frames, s[1].frames);
	if (r >= 0) {
		*ret = (struct bench_pictures){ .frames = s[0].frames };
		count = 3 * (size_t)s[0].frames * (size_t)s[0].width * (size_t)s[0].height;
		for (size_t i = 0; i < count; i++) {
			const int d = abs((int)s[0].out[i] - (int)s[1].out[i]);

			sum += d;
			ret->worst = MAX_OF(ret->worst, d);
		}
		ret->mean = sum / (double)count;
	}
	shown_finish(&s[0]);
	shown_finish(&s[1]);
	return r;
}
