/* The pipeline as its owner sees it: creation, requests, measures, the end. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	DEFAULT_FPS = 24,
	LIGHT_NICE = -10,
	MEASURE_PERIOD_S = 30, /* quantiles are of the newest one to two of these */
	/*
	 * Pictures in use at once beside the queues: the capture thread's and the newest, the engine's, the
	 * warm-up's, the one shown and the one before, the card, the snapshot's two, and some air.
	 */
	SPARE_PICTURES = 12,
};

static const char *const show_names[PIPELINE_SHOW_COUNT] = {
	[PIPELINE_SHOW_SOURCE] = "pass-through",
	[PIPELINE_SHOW_SLATE] = "slate",
	[PIPELINE_SHOW_LAST] = "last-frame",
};

const char *pipeline_show_name(enum pipeline_show show)
{
	return (unsigned int)show < PIPELINE_SHOW_COUNT ? show_names[show] : "?";
}

enum pipeline_show pipeline_show_from_name(const char *name)
{
	for (int i = 0; i < PIPELINE_SHOW_COUNT; i++)
		if (strcmp(show_names[i], name) == 0)
			return (enum pipeline_show)i;
	return PIPELINE_SHOW_INVALID;
}

void pipeline_settings_init(struct pipeline_settings *settings)
{
	*settings = (struct pipeline_settings){
		.while_warming = PIPELINE_SHOW_SOURCE,
		.while_lost = PIPELINE_SHOW_SLATE,
		.while_paused = PIPELINE_SHOW_LAST,
		.hold_ns = CLOCK_SECOND_NS,
		.latency_cap_ns = 5 * CLOCK_SECOND_NS,
		.unwatched_ns = 5 * CLOCK_SECOND_NS,
		.backoff_min_ns = 100 * CLOCK_MS_NS,
		.backoff_max_ns = CLOCK_SECOND_NS,
	};
}

void pipeline_options_init(struct pipeline_options *options)
{
	*options = (struct pipeline_options){ .engine = &pipeline_engine_sana };
	sana_stream_options_init(&options->stream);
	pipeline_settings_init(&options->settings);
}

/* -------------------------------------------------------------------------------- small helpers */

void pipeline_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attributes);
	(void)pthread_condattr_destroy(&attributes);
}

/*
 * The engine's threads on a CPU are many and always busy; those that move frames do little, but at their
 * time. Not everybody may ask for more (RLIMIT_NICE): then the order is the kernel's.
 */
void pipeline_thread_is_light(void)
{
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), LIGHT_NICE);
}

struct wanted pipeline_wanted(struct pipeline *p)
{
	struct wanted wanted;

	(void)pthread_mutex_lock(&p->lock);
	wanted = p->wanted;
	(void)pthread_mutex_unlock(&p->lock);
	return wanted;
}

bool pipeline_works(const struct wanted *wanted)
{
	return wanted->active && !wanted->paused && !wanted->resting && wanted->source[0];
}

void pipeline_poke(struct pipeline *p)
{
	(void)eventfd_write(p->capture.wake_fd, 1);
	ring_wake(&p->capture.ring);
	(void)pthread_mutex_lock(&p->lock);
	(void)pthread_cond_signal(&p->present.wake);
	(void)pthread_cond_signal(&p->caption.wake);
	(void)pthread_mutex_unlock(&p->lock);
}

void backoff_fail(struct backoff *b, struct pipeline *p, int64_t alive_ns)
{
	const struct wanted wanted = pipeline_wanted(p);
	const struct pipeline_settings *s = &wanted.settings;

	if (b->wait_ns < s->backoff_min_ns || alive_ns > s->backoff_max_ns)
		b->wait_ns = s->backoff_min_ns;
	b->until_ns = clock_now_ns() + b->wait_ns;
	b->wait_ns = MIN_OF(2 * b->wait_ns, s->backoff_max_ns);
}

bool backoff_waits(struct backoff *b, struct pipeline *p)
{
	const struct wanted wanted = pipeline_wanted(p);

	if (clock_now_ns() < b->until_ns && b->retry_seen == wanted.retry_serial)
		return true;
	/* What is said from here on, while the attempt is made, ends the wait after it. */
	b->retry_seen = wanted.retry_serial;
	return false;
}

/* ------------------------------------------------------------------------------------- creation */

static int string_copy(const char *from, char **ret)
{
	*ret = from ? strdup(from) : NULL;
	return from && !*ret ? -ENOMEM : 0;
}

static int options_copy(struct pipeline *p, const struct pipeline_options *options)
{
	struct pipeline_options *o = &p->options;
	int r;

	*o = *options;
	if (o->fps_num <= 0 || o->fps_den <= 0) {
		o->fps_num = DEFAULT_FPS;
		o->fps_den = 1;
	}
	p->wanted.settings = o->settings;
	r = string_copy(options->model.directory, &p->model_directory);
	if (r == 0)
		r = string_copy(options->model.shape, &p->model_shape);
	if (r == 0)
		r = string_copy(options->model.backend, &p->backend);
	if (r == 0)
		r = string_copy(options->model.tuning_directory, &p->tuning_directory);
	if (r == 0)
		r = string_copy(options->sink_codec, &p->sink_codec);
	o->model.directory = p->model_directory;
	o->model.shape = p->model_shape;
	o->model.backend = p->backend;
	o->model.tuning_directory = p->tuning_directory;
	o->sink_codec = p->sink_codec;
	return r;
}

/* The picture's size and how long chunks are, before the model is loaded. */
static int sizes_take(struct pipeline *p, struct sana_error *error)
{
	const struct sana_stream_options *stream = &p->options.stream;
	struct model_config config = { 0 };
	const struct stream_config *s = &config.stream;
	int first, r;

	if (!p->model_directory && !p->model_shape)
		return sana_error_set(error, -EINVAL, "model.options",
				      "There is no model: set model.directory to one.");
	r = p->model_directory ? model_config_load(p->model_directory, &config, error) :
				 model_config_builtin(p->model_shape, &config, error);
	if (r < 0)
		return r;
	p->width = stream->width ? stream->width : s->width;
	p->height = stream->height ? stream->height : s->height;
	first = stream->first_chunk_latents ? stream->first_chunk_latents :
					      s->first_chunk_latents[s->first_chunks - 1];
	p->first_chunk_frames = 1 + (first - 1) * s->temporal_ratio;
	p->chunk_frames = s->chunk_latents * s->temporal_ratio;
	if (p->width % s->spatial_ratio || p->height % s->spatial_ratio)
		r = sana_error_set(error, -EINVAL, "stream.options",
				   "A picture of %dx%d: this model wants multiples of %d.",
				   p->width, p->height, s->spatial_ratio);
	model_config_finish(&config);
	return r;
}

static int memory_take(struct pipeline *p, struct sana_error *error)
{
	const int queued =
		p->chunk_frames + MIN_OF(p->first_chunk_frames + p->chunk_frames, PACER_CAPACITY);
	/* Mostly all sinks hold the same pictures; those that block hold others. */
	const int sinks = PIPELINE_SINKS * (SINK_WAITING + 1);
	int r;

	r = frame_pool_create(p->width, p->height, queued + SPARE_PICTURES + sinks, &p->pool);
	if (r == 0)
		r = ring_init(&p->capture.ring, p->chunk_frames);
	if (r == 0)
		r = ring_init(&p->present.ring, PRESENT_WAITING);
	if (r < 0)
		return sana_error_set(error, r, "memory", "No memory for %d pictures of %dx%d.",
				      queued, p->width, p->height);
	return media_convert_create(p->width, p->height, true, &p->capture.convert, error);
}

static int descriptors_open(struct pipeline *p, struct sana_error *error)
{
	int r;

	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->capture.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = p->stop_fd < 0 || p->capture.wake_fd < 0 ? -errno : events_init(&p->events);
	if (r < 0)
		return sana_error_set(error, r, "memory", "No descriptors for the pipeline: %s.",
				      strerror(-r));
	return 0;
}

static void locks_init(struct pipeline *p)
{
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_mutex_init(&p->present.measures_lock, NULL);
	pipeline_cond_init(&p->present.wake);
	pipeline_cond_init(&p->caption.wake);
	pipeline_cond_init(&p->snapshot.ended);
	for (int i = 0; i < SINK_SLOTS; i++) {
		p->sink[i].pipeline = p;
		p->sink[i].number = i;
		(void)pthread_mutex_init(&p->sink[i].mailbox.lock, NULL);
		pipeline_cond_init(&p->sink[i].mailbox.filled);
	}
	histogram_init(&p->present.age, MEASURE_PERIOD_S * CLOCK_SECOND_NS);
	histogram_init(&p->present.interval, MEASURE_PERIOD_S * CLOCK_SECOND_NS);
}

static int thread_start(struct pipeline *p, const char *name, void *(*function)(void *),
			pthread_t *thread, bool *started, struct sana_error *error)
{
	const int r = -pthread_create(thread, NULL, function, p);

	if (r < 0)
		return sana_error_set(error, r, "memory", "No thread for %s: %s.", name,
				      strerror(-r));
	*started = true;
	(void)pthread_setname_np(*thread, name);
	return 0;
}

static int threads_start(struct pipeline *p, struct sana_error *error)
{
	int r;

	r = thread_start(p, "present", present_main, &p->present.thread, &p->present.started,
			 error);
	if (r == 0)
		r = thread_start(p, "capture", capture_main, &p->capture.thread,
				 &p->capture.started, error);
	if (r == 0)
		r = thread_start(p, "caption", caption_main, &p->caption.thread,
				 &p->caption.started, error);
	if (r == 0)
		r = thread_start(p, "engine", engine_main, &p->engine.thread, &p->engine.started,
				 error);
	return r;
}

int pipeline_create(const struct pipeline_options *options, struct pipeline **ret,
		    struct sana_error *error)
{
	struct pipeline *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	locks_init(p);
	r = options_copy(p, options);
	if (r < 0)
		(void)sana_error_set(error, r, "memory", "Out of memory.");
	if (r == 0)
		r = sizes_take(p, error);
	if (r == 0)
		r = memory_take(p, error);
	if (r == 0)
		r = descriptors_open(p, error);
	if (r == 0)
		r = threads_start(p, error);
	if (r < 0) {
		(void)pipeline_destroy(p);
		return r;
	}
	*ret = p;
	return 0;
}

/* ---------------------------------------------------------------------------------------- the end */

static void thread_join(pthread_t thread, bool started)
{
	if (started)
		(void)pthread_join(thread, NULL);
}

static void threads_stop(struct pipeline *p)
{
	atomic_store(&p->stopping, true);
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.active = false;
	for (int i = 0; i < SINK_SLOTS; i++)
		if (p->sink[i].phase == SINK_WORKS)
			p->sink[i].phase = SINK_ENDS;
	(void)pthread_mutex_unlock(&p->lock);
	(void)eventfd_write(p->stop_fd, 1);
	pipeline_poke(p);
	thread_join(p->capture.thread, p->capture.started);
	thread_join(p->present.thread, p->present.started);
	sinks_reap(p, true);
	thread_join(p->engine.thread, p->engine.started);
	thread_join(p->caption.thread, p->caption.started);
}

static void rings_empty(struct pipeline *p)
{
	struct frame *frame;

	while ((frame = ring_pop(&p->capture.ring)))
		(void)frame_unref(frame);
	while ((frame = ring_pop(&p->present.ring)))
		(void)frame_unref(frame);
}

void pipeline_free(struct pipeline *p)
{
	if (p->capture.ring.item && p->present.ring.item)
		rings_empty(p);
	(void)media_convert_destroy(p->capture.convert);
	ring_finish(&p->capture.ring);
	ring_finish(&p->present.ring);
	(void)frame_pool_destroy(p->pool);
	events_finish(&p->events);
	if (p->stop_fd > 0)
		(void)close(p->stop_fd);
	if (p->capture.wake_fd > 0)
		(void)close(p->capture.wake_fd);
	free(p->model_directory);
	free(p->model_shape);
	free(p->backend);
	free(p->tuning_directory);
	free(p->sink_codec);
	free(p);
}

struct pipeline *pipeline_destroy(struct pipeline *p)
{
	if (!p)
		return NULL;
	/* The rings are there as soon as any thread may be. */
	if (p->present.started)
		threads_stop(p);
	if (p->caption.done)
		(void)p->options.engine->prompt_unref(p->caption.done);
	if (snapshot_finish(p))
		pipeline_free(p);
	return NULL;
}

/* --------------------------------------------------------------------------------------- requests */

int pipeline_event_fd(const struct pipeline *p)
{
	return p->events.fd;
}

bool pipeline_next_event(struct pipeline *p, struct pipeline_event *ret)
{
	return events_next(&p->events, ret);
}

void pipeline_set_active(struct pipeline *p, bool active)
{
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.start_serial += active && !p->wanted.active;
	p->wanted.active = active;
	if (!active)
		p->wanted.resting = false;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
}

void pipeline_set_paused(struct pipeline *p, bool paused)
{
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.start_serial += !paused && p->wanted.paused;
	p->wanted.paused = paused;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
}

void pipeline_set_source(struct pipeline *p, const char *identity)
{
	(void)pthread_mutex_lock(&p->lock);
	(void)snprintf(p->wanted.source, sizeof(p->wanted.source), "%s", identity);
	p->wanted.source_serial++;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
}

void pipeline_set_settings(struct pipeline *p, const struct pipeline_settings *settings)
{
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.settings = *settings;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
}

void pipeline_reset(struct pipeline *p)
{
	atomic_store(&p->engine.reset, true);
}

void pipeline_retry(struct pipeline *p)
{
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.retry_serial++;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
}
