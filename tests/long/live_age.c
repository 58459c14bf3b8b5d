/*
 * The published model's shape on a GPU in the daemon's pipeline: how old pictures are when they are shown,
 * and how even the output is. 1280x704 at 24 frames a second, generated weights. Skipped without a GPU.
 *
 * SANA_AGE_SECONDS (20): how long it is measured; SANA_AGE_BACKEND (cuda); SANA_AGE_FIRST (0: the model's
 * own): latents of the first chunk; SANA_AGE_DECODE (0: all of a chunk): latents decoded at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "daemon/pipeline.h"
#include "media/sink_ops.h"
#include "media/source_ops.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <poll.h>

enum {
	WIDTH = 1280,
	HEIGHT = 704,
	FPS = 24,
	LOAD_SECONDS = 300,
	/* The first chunk is older: the pacer comes down from it by 20 ms a second. */
	SETTLE_SECONDS = 35,
};

/* A camera of moving stripes: its own copy of one picture, another row offset each time. */
struct camera {
	struct media_source source;
	struct media_source_wish wish;
	int64_t next_ns;
	int frame;
	uint8_t rgb[3 * WIDTH * (HEIGHT + 256)];
};

static int camera_read(struct media_source *source, struct media_picture *ret,
		       struct sana_error *error)
{
	struct camera *c = (struct camera *)source;
	struct pollfd fd = { .fd = c->wish.stop_fd, .events = POLLIN };

	while (clock_now_ns() < c->next_ns)
		if (poll(&fd, 1, clock_poll_ms(c->next_ns)) > 0)
			return sana_error_set(error, -EINTR, "source.interrupted", "Interrupted.");
	*ret = (struct media_picture){
		.plane = { c->rgb + 3 * WIDTH * (c->frame++ % 256) },
		.row_bytes = { 3 * WIDTH },
		.format = AV_PIX_FMT_RGB24,
		.width = WIDTH,
		.height = HEIGHT,
		.full_range = true,
		.aspect_num = 1,
		.aspect_den = 1,
		.capture_ns = c->next_ns,
	};
	c->next_ns += CLOCK_SECOND_NS / FPS;
	return 1;
}

static void camera_close(struct media_source *source)
{
	free(source);
}

static const struct media_source_ops camera_ops = { .read = camera_read, .close = camera_close };

static int camera_open(void *context, const struct media_source_wish *wish,
		       struct media_source **ret, struct sana_error *error)
{
	struct camera *c = calloc(1, sizeof(*c));

	(void)context;
	(void)error;
	if (!c)
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(c->rgb); i++)
		c->rgb[i] = (uint8_t)(i / 3 % WIDTH / 5 + i / (3 * WIDTH) + 40 * (i % 3));
	c->source.ops = &camera_ops;
	c->source.info.live = true;
	c->wish = *wish;
	c->next_ns = clock_now_ns();
	*ret = &c->source;
	return 0;
}

static int sink_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		      int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	(void)sink;
	(void)rgb;
	(void)row_bytes;
	(void)timestamp_ns;
	(void)duration_ns;
	(void)error;
	return 0;
}

static void sink_close(struct media_sink *sink)
{
	free(sink);
}

static const struct media_sink_ops sink_ops = { .write = sink_write, .close = sink_close };

static int sink_open(void *context, const struct media_sink_wish *wish, struct media_sink **ret,
		     struct sana_error *error)
{
	struct media_sink *sink = calloc(1, sizeof(*sink));

	(void)context;
	(void)wish;
	(void)error;
	if (!sink)
		return -ENOMEM;
	sink->ops = &sink_ops;
	*ret = sink;
	return 0;
}

/* Generated weights come without a tokenizer: a caption is made of numbers. */
static int caption_create(struct sana_model *model, const char *text, struct sana_prompt **ret,
			  struct sana_error *error)
{
	const struct dit_config *dit = &sana_model_config(model)->dit;
	const size_t count = (size_t)dit->max_tokens * (size_t)dit->caption_channels;
	_cleanup_(freep) float *rows = malloc(count * sizeof(*rows));

	(void)text;
	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		rows[i] = (float)((i * 2654435761u) % 65536) / 32768.0f - 1.0f;
	return sana_prompt_from_features(model, rows, dit->max_tokens, ret, error);
}

/* False: no GPU. */
static bool wait_running(struct pipeline *pipeline)
{
	const int64_t start_ns = clock_now_ns();
	struct pipeline_event event;

	while (clock_now_ns() < start_ns + LOAD_SECONDS * CLOCK_SECOND_NS) {
		struct pollfd fd = { .fd = pipeline_event_fd(pipeline), .events = POLLIN };

		(void)poll(&fd, 1, 100);
		while (pipeline_next_event(pipeline, &event)) {
			if (event.kind == PIPELINE_EVENT_FAULT && event.on) {
				print_message("%s: %s\n", event.name, event.text);
				return false;
			}
			if (event.kind == PIPELINE_EVENT_WARM)
				print_message("warm after %.1f s\n",
					      (double)(clock_now_ns() - start_ns) / 1e9);
			if (event.kind == PIPELINE_EVENT_RUNNING)
				return true;
		}
	}
	fail_msg("nothing was shown");
	return false;
}

static void wait_seconds(double seconds)
{
	const struct timespec until = clock_to_timespec(clock_now_ns() + (int64_t)(seconds * 1e9));

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

static void report(const struct pipeline_statistics *a, const struct pipeline_statistics *b,
		   double seconds)
{
	print_message(
		"edited %.2f, shown %.2f frames/s; left out %llu + %llu; repeated %llu, skipped "
		"%llu, late %llu\n",
		(double)(b->frames_edited - a->frames_edited) / seconds,
		(double)(b->frames_shown - a->frames_shown) / seconds,
		(unsigned long long)(b->dropped_overload - a->dropped_overload),
		(unsigned long long)(b->dropped_ring - a->dropped_ring),
		(unsigned long long)(b->frames_repeated - a->frames_repeated),
		(unsigned long long)(b->frames_skipped - a->frames_skipped),
		(unsigned long long)(b->frames_late - a->frames_late));
	print_message(
		"age p50 %.3f p99 %.3f max %.3f s; output interval p50 %.2f p99 %.2f ms; all but "
		"the engine %.2f %% of a core\n",
		(double)b->age_p50_ns / 1e9, (double)b->age_p99_ns / 1e9,
		(double)b->age_max_ns / 1e9, (double)b->interval_p50_ns / 1e6,
		(double)b->interval_p99_ns / 1e6, (double)(b->cpu_ns - a->cpu_ns) / 1e7 / seconds);
	for (int i = SANA_STAGE_NONE + 1; i < SANA_STAGE_COUNT; i++) {
		const uint64_t count = b->engine.stage_count[i] - a->engine.stage_count[i];

		if (count)
			print_message("  %-8s %8.2f ms, %llu times\n",
				      sana_stage_name((enum sana_stage)i),
				      (double)(b->engine.stage_ns[i] - a->engine.stage_ns[i]) /
					      1e6 / (double)count,
				      (unsigned long long)count);
	}
}

static int number(const char *name, int otherwise)
{
	const char *text = getenv(name);

	return text ? atoi(text) : otherwise;
}

static void test_age(void **state)
{
	const char *backend = getenv("SANA_AGE_BACKEND");
	const double seconds = number("SANA_AGE_SECONDS", 20);
	struct pipeline_engine engine = pipeline_engine_sana;
	static const char *const sinks[] = { "loopback:" };
	struct pipeline_statistics before, after;
	struct pipeline_options options;
	struct pipeline *pipeline;
	struct sana_error error = { 0 };

	(void)state;
	engine.prompt_create = caption_create;
	pipeline_options_init(&options);
	options.engine = &engine;
	options.devices = (struct pipeline_devices){ camera_open, sink_open, NULL };
	options.model = (struct sana_model_options){ .shape = "2b",
						     .backend = backend ? backend : "cuda",
						     .without_text = true };
	options.stream.width = WIDTH;
	options.stream.height = HEIGHT;
	options.stream.first_chunk_latents = number("SANA_AGE_FIRST", 0);
	options.stream.decode_latents = number("SANA_AGE_DECODE", 0);
	if (pipeline_create(&options, &pipeline, &error) < 0)
		fail_msg("%s", error.text);
	(void)pipeline_set_prompt(pipeline, "any");
	pipeline_set_source(pipeline, "v4l2:");
	assert_int_equal(pipeline_set_sinks(pipeline, sinks, 1, &error), 0);
	pipeline_set_active(pipeline, true);
	if (!wait_running(pipeline)) {
		(void)pipeline_destroy(pipeline);
		skip();
	}
	wait_seconds(SETTLE_SECONDS);
	pipeline_statistics(pipeline, &before);
	wait_seconds(seconds);
	pipeline_statistics(pipeline, &after);
	report(&before, &after, seconds);
	assert_true(after.frames_shown > before.frames_shown);
	assert_true(after.age_max_ns <= options.settings.latency_cap_ns + CLOCK_SECOND_NS / FPS);
	(void)pipeline_destroy(pipeline);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_age) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
