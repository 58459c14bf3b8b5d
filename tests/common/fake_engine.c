/* An engine without a model. */
#include "tests/common/fake_engine.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>
#include <unistd.h>

/* Of a chunk's time asleep; in how many parts its frames come. */
enum { WAITS = 6, PIECES = 3 };

struct fake_engine fake_engine;

struct sana_prompt {
	char text[64];
};

struct sana_model {
	atomic_int references;
	void (*alive)(void *context);
	void *alive_context;
};

struct fake_frame {
	uint8_t *rgb;
	int64_t timestamp_ns;
};

struct sana_stream {
	int width, height;
	void (*alive)(void *context);
	void *alive_context;
	struct fake_frame fill[FAKE_ENGINE_CHUNK], run[FAKE_ENGINE_CHUNK];
	int filled, running, ready, next; /* of running ones, [next, ready) may be pulled */
	int waits;			  /* steps that wait for the chunk that was begun */
	int pushed;			  /* since the last step */
	enum sana_stage phase;
	bool first, announce;
	uint64_t chunk, frame, ticket, last_ticket, pending;
	int64_t last_ns;
	struct sana_statistics statistics;
};

void fake_engine_init(void)
{
	memset(&fake_engine, 0, sizeof(fake_engine));
	fake_engine.first_frames = 33;
	fake_engine.chunk_frames = 24;
}

static void sleep_ns(int64_t ns)
{
	const struct timespec until = clock_to_timespec(clock_now_ns() + ns);

	while (ns > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Consumes one of a number of failures. */
static bool fails(atomic_int *left)
{
	if (atomic_load(left) <= 0)
		return false;
	atomic_fetch_sub(left, 1);
	return true;
}

static int model_open(const struct sana_model_options *options, struct sana_model **ret,
		      struct sana_error *error)
{
	struct sana_model *model;

	if (options->progress)
		options->progress(options->progress_context, "weights", 0.5);
	if (fails(&fake_engine.model_failures))
		return sana_error_set(error, -EIO,
				      fake_engine.model_fault ? fake_engine.model_fault :
								"model.weights",
				      "It cannot be opened.");
	model = calloc(1, sizeof(*model));
	if (!model)
		return -ENOMEM;
	model->references = 1;
	model->alive = options->alive;
	model->alive_context = options->alive_context;
	atomic_fetch_add(&fake_engine.models, 1);
	atomic_fetch_add(&fake_engine.opened, 1);
	*ret = model;
	return 0;
}

static struct sana_model *model_ref(struct sana_model *model)
{
	atomic_fetch_add(&model->references, 1);
	return model;
}

static struct sana_model *model_unref(struct sana_model *model)
{
	if (model && atomic_fetch_sub(&model->references, 1) == 1) {
		atomic_fetch_sub(&fake_engine.models, 1);
		free(model);
	}
	return NULL;
}

static const char *model_backend(const struct sana_model *model)
{
	(void)model;
	return "cpu";
}

static const char *model_backend_note(const struct sana_model *model)
{
	(void)model;
	return "";
}

static int prompt_create(struct sana_model *model, const char *text, struct sana_prompt **ret,
			 struct sana_error *error)
{
	struct sana_prompt *prompt;

	while (atomic_load(&fake_engine.prompts_hang)) {
		if (atomic_load(&fake_engine.prompts_crawl))
			model->alive(model->alive_context);
		(void)usleep(10000);
	}
	if (atomic_load(&fake_engine.refuses_prompts))
		return sana_error_set(error, -EINVAL, "prompt.tokens", "No such words.");
	prompt = calloc(1, sizeof(*prompt));
	if (!prompt)
		return -ENOMEM;
	(void)snprintf(prompt->text, sizeof(prompt->text), "%s", text);
	atomic_fetch_add(&fake_engine.prompts, 1);
	*ret = prompt;
	return 0;
}

static struct sana_prompt *prompt_unref(struct sana_prompt *prompt)
{
	if (prompt)
		atomic_fetch_sub(&fake_engine.prompts, 1);
	free(prompt);
	return NULL;
}

static struct sana_stream *stream_close(struct sana_stream *s)
{
	if (!s)
		return NULL;
	for (int i = 0; i < FAKE_ENGINE_CHUNK; i++) {
		free(s->fill[i].rgb);
		free(s->run[i].rgb);
	}
	atomic_fetch_sub(&fake_engine.streams, 1);
	free(s);
	return NULL;
}

static int stream_open(struct sana_model *model, const struct sana_stream_options *options,
		       struct sana_stream **ret, struct sana_error *error)
{
	const size_t bytes = 3 * (size_t)options->width * (size_t)options->height;
	struct sana_stream *s = calloc(1, sizeof(*s));

	(void)model;
	(void)error;
	if (!s)
		return -ENOMEM;
	s->alive = options->alive;
	s->alive_context = options->alive_context;
	s->width = options->width;
	s->height = options->height;
	s->first = true;
	s->last_ns = INT64_MIN;
	for (int i = 0; i < FAKE_ENGINE_CHUNK; i++) {
		s->fill[i].rgb = malloc(bytes);
		s->run[i].rgb = malloc(bytes);
	}
	atomic_fetch_add(&fake_engine.streams, 1);
	*ret = s;
	return 0;
}

static int set_prompt(struct sana_stream *s, struct sana_prompt *prompt,
		      enum sana_prompt_switch mode, uint64_t *ret_ticket, struct sana_error *error)
{
	(void)prompt;
	(void)mode;
	(void)error;
	s->pending = ++s->last_ticket;
	*ret_ticket = s->pending;
	return 0;
}

static void discard(struct sana_stream *s)
{
	s->filled = 0;
	s->first = true;
	atomic_fetch_add(&fake_engine.resets, 1);
}

static int chunk_size(const struct sana_stream *s)
{
	return s->first ? fake_engine.first_frames : fake_engine.chunk_frames;
}

static int push(struct sana_stream *s, const struct sana_picture *picture, int64_t timestamp_ns,
		struct sana_error *error)
{
	if (timestamp_ns <= s->last_ns)
		return sana_error_set(error, -EINVAL, "stream.order", "Not in order.");
	if (!s->last_ticket)
		return sana_error_set(error, -EINVAL, "stream.prompt", "No prompt.");
	if (s->filled == chunk_size(s))
		return 0;
	for (int y = 0; y < s->height; y++)
		memcpy(s->fill[s->filled].rgb + 3 * (size_t)s->width * (size_t)y,
		       picture->rgb + picture->row_bytes * (size_t)y, 3 * (size_t)s->width);
	s->fill[s->filled++].timestamp_ns = timestamp_ns;
	s->last_ns = timestamp_ns;
	s->pushed++;
	atomic_fetch_add(&fake_engine.pushed, 1);
	return 1;
}

static void chunk_start(struct sana_stream *s)
{
	for (int i = 0; i < s->filled; i++) {
		const struct fake_frame frame = s->run[i];

		s->run[i] = s->fill[i];
		s->fill[i] = frame;
	}
	s->running = s->filled;
	s->filled = s->ready = s->next = 0;
	s->first = false;
	s->chunk++;
	s->announce = s->pending != 0;
	if (s->pending)
		s->ticket = s->pending;
	s->pending = 0;
}

/* As on a GPU: the cache pass is begun when the first of three pieces is decoded and the others are on their way. */
static int step_wait(struct sana_stream *s, enum sana_stage *ret_stage)
{
	if (s->waits == PIECES - 1 && s->phase == SANA_STAGE_CACHE) {
		s->phase = SANA_STAGE_NONE;
		return 1;
	}
	*ret_stage = SANA_STAGE_NONE;
	sleep_ns(atomic_load(&fake_engine.frame_ns) * s->running / WAITS);
	if (--s->waits < PIECES)
		s->ready = s->running * (PIECES - s->waits) / PIECES;
	s->statistics.chunks += s->waits == 0;
	return 1;
}

static int step(struct sana_stream *s, enum sana_stage *ret_stage, struct sana_error *error)
{
	while (atomic_load(&fake_engine.hangs)) {
		if (atomic_load(&fake_engine.crawls))
			s->alive(s->alive_context);
		(void)usleep(10000);
	}
	if (s->pushed > atomic_load(&fake_engine.most_pushed))
		atomic_store(&fake_engine.most_pushed, s->pushed);
	s->pushed = 0;
	*ret_stage = s->phase;
	if (s->waits > 0)
		return step_wait(s, ret_stage);
	if (s->phase == SANA_STAGE_NONE) {
		if (s->next < s->running || s->filled < chunk_size(s))
			return 0;
		if (fails(&fake_engine.step_failures)) {
			s->filled = 0;
			s->first = true;
			return sana_error_set(error, -EIO,
					      fake_engine.step_fault ? fake_engine.step_fault :
								       "backend.failed",
					      "It failed.");
		}
		*ret_stage = SANA_STAGE_DENOISE;
		if (!fake_engine.overlaps)
			sleep_ns(atomic_load(&fake_engine.frame_ns) * s->filled);
		chunk_start(s);
		s->phase = SANA_STAGE_CACHE;
		s->waits = fake_engine.overlaps ? WAITS : 0;
		s->ready = fake_engine.overlaps ? 0 : s->running;
		s->statistics.chunks += !fake_engine.overlaps;
		return 1;
	}
	s->phase = SANA_STAGE_NONE;
	return 1;
}

static int pull(struct sana_stream *s, struct sana_picture *picture,
		struct sana_frame_info *ret_info, struct sana_error *error)
{
	(void)error;
	if (s->next >= s->ready)
		return 0;
	for (int y = 0; y < s->height; y++)
		for (int x = 0; x < 3 * s->width; x++)
			picture->rgb[picture->row_bytes * (size_t)y + (size_t)x] =
				(uint8_t)(255 -
					  s->run[s->next].rgb[3 * (size_t)s->width * (size_t)y +
							      (size_t)x]);
	*ret_info = (struct sana_frame_info){ .frame = s->frame++,
					      .timestamp_ns = s->run[s->next].timestamp_ns,
					      .chunk = s->chunk - 1,
					      .index_in_chunk = s->next,
					      .ticket = s->ticket,
					      .prompt_changed = s->announce };
	s->announce = false;
	s->next++;
	atomic_fetch_add(&fake_engine.pulled, 1);
	return 1;
}

static void statistics(struct sana_stream *s, struct sana_statistics *ret)
{
	*ret = s->statistics;
}

const struct pipeline_engine fake_engine_api = {
	.model_open = model_open,
	.model_ref = model_ref,
	.model_unref = model_unref,
	.model_backend = model_backend,
	.model_backend_note = model_backend_note,
	.prompt_create = prompt_create,
	.prompt_unref = prompt_unref,
	.stream_open = stream_open,
	.stream_close = stream_close,
	.set_prompt = set_prompt,
	.discard = discard,
	.push = push,
	.step = step,
	.pull = pull,
	.statistics = statistics,
};
