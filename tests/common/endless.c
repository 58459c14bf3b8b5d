/* A stream that runs for very long. */
#include "tests/common/endless.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	WARM_CHUNKS = 20,      /* memory is flat after these */
	ALLOCATING_CHUNKS = 2, /* nothing allocates after these (sana.h) */
	FRAME_NS = 40000000,
};

/* Pages that the kernel hands out late, and the C library's own buffers. */
static const long growth_allowed_kib = 256;

struct endless {
	const struct endless_options *options;
	struct sana_stream *stream;
	uint8_t *source, *edited;
	uint64_t pushed, pulled;
	int prompts, changes; /* set; seen in what came out */
	uint64_t ticket;      /* of the newest */
	long warm_kib, most_kib;
	int64_t start_ns, report_ns, slowest_ns;
	uint64_t chunks, report_chunk; /* done; at the last line */
	double squares;		       /* of the latents since the last line */
	size_t latents, bad;
};

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Resident memory. Allocates, so it is called while nothing counts. */
static long resident_kib(void)
{
	long whole, resident;
	char text[128];
	FILE *file;

	file = fopen("/proc/self/statm", "re");
	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	(void)fclose(file);
	assert_int_equal(sscanf(text, "%ld %ld", &whole, &resident), 2);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void latents_look(void *context, uint64_t chunk, int frames, const float *latents,
			 const float *source)
{
	struct endless *e = context;
	const struct endless_options *o = e->options;
	const struct stream_config *config = &sana_model_config(o->model)->stream;
	const size_t count = (size_t)frames * (size_t)(o->width / config->spatial_ratio) *
			     (size_t)(o->height / config->spatial_ratio) *
			     (size_t)config->latent_channels;

	(void)chunk;
	for (size_t i = 0; i < count; i++) {
		e->bad += !isfinite(latents[i]) || !isfinite(source[i]);
		e->squares += (double)latents[i] * latents[i];
	}
	e->latents += count;
}

/* --------------------------------------------------------------------------------------- one chunk */

/* A pattern that moves, so that no chunk is like the one before. */
static void picture_draw(const struct endless *e)
{
	const int width = e->options->width, height = e->options->height;
	const unsigned int t = (unsigned int)e->pushed;
	uint8_t *to = e->source;

	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++) {
			*to++ = (uint8_t)(7 * (unsigned int)x + 3 * t);
			*to++ = (uint8_t)(5 * (unsigned int)y + (t >> 2));
			*to++ = (uint8_t)((unsigned int)(x * y) ^ t);
		}
}

static void prompt_next(struct endless *e)
{
	struct sana_error error = { 0 };

	if (sana_stream_set_prompt(e->stream, e->options->prompt[e->prompts % ENDLESS_PROMPTS],
				   SANA_SWITCH_KEEP, &e->ticket, &error) < 0)
		fail_msg("%s", error.text);
	e->prompts++;
}

static void frames_pull(struct endless *e)
{
	const int width = e->options->width;
	struct sana_picture picture = { e->edited, (size_t)width * 3, width, e->options->height };
	struct sana_error error = { 0 };
	struct sana_frame_info info;
	int r;

	while ((r = sana_stream_pull(e->stream, &picture, &info, &error)) > 0) {
		/* One for one and in order, whatever the prompt. */
		assert_int_equal(info.frame, e->pulled);
		assert_int_equal(info.timestamp_ns, (int64_t)e->pulled * FRAME_NS);
		if (info.prompt_changed) {
			assert_int_equal(info.ticket, e->ticket);
			e->changes++;
		}
		e->pulled++;
	}
	if (r < 0)
		fail_msg("%s", error.text);
}

static void stages_run(struct endless *e)
{
	struct sana_error error = { 0 };
	enum sana_stage stage;
	int r;

	while ((r = sana_stream_step(e->stream, &stage, &error)) > 0)
		frames_pull(e);
	if (r < 0)
		fail_msg("%s: %s", error.name, error.text);
}

static int chunk_frames(const struct endless *e)
{
	const struct stream_config *config = &sana_model_config(e->options->model)->stream;
	const int first = config->first_chunk_latents[config->first_chunks - 1];

	if (e->chunks == 0)
		return 1 + (first - 1) * config->temporal_ratio;
	return config->chunk_latents * config->temporal_ratio;
}

static void chunk_run(struct endless *e)
{
	const int width = e->options->width, frames = chunk_frames(e);
	const struct sana_picture picture = { e->source, (size_t)width * 3, width,
					      e->options->height };
	const int64_t start = now_ns();
	struct sana_error error = { 0 };

	if (e->chunks % (uint64_t)e->options->switch_chunks == 0)
		prompt_next(e);
	for (int i = 0; i < frames; i++) {
		picture_draw(e);
		if (sana_stream_push(e->stream, &picture, (int64_t)e->pushed * FRAME_NS, &error) !=
		    1)
			fail_msg("frame %llu: %s", (unsigned long long)e->pushed, error.text);
		e->pushed++;
		stages_run(e);
	}
	e->chunks++;
	e->slowest_ns = MAX_OF(e->slowest_ns, now_ns() - start);
}

/* ------------------------------------------------------------------------------------------ books */

static void line_print(struct endless *e, long resident)
{
	const int64_t now = now_ns();
	const uint64_t done = e->chunks - e->report_chunk;

	print_message("%7.1f s  chunk %7llu  RSS %ld KiB  %.2f ms a chunk, slowest %.1f  "
		      "latents' RMS %.3f\n",
		      (double)(now - e->start_ns) * 1e-9, (unsigned long long)e->chunks, resident,
		      (double)(now - e->report_ns) * 1e-6 / (double)done,
		      (double)e->slowest_ns * 1e-6, sqrt(e->squares / (double)e->latents));
	(void)fflush(stdout);
	e->report_ns = now;
	e->report_chunk = e->chunks;
	e->slowest_ns = 0;
	e->squares = 0;
	e->latents = 0;
}

/* The test's own words and looks at /proc may allocate; what the stream does may not. */
static void books_keep(struct endless *e)
{
	const struct endless_options *o = e->options;
	const int64_t since = now_ns() - e->report_ns;
	const bool due = o->report_seconds ? since >= o->report_seconds * 1000000000 :
					     e->chunks % (uint64_t)o->report_chunks == 0;
	long resident;

	if (!due && e->chunks != WARM_CHUNKS && e->chunks != ALLOCATING_CHUNKS)
		return;
	o->count(false);
	resident = resident_kib();
	if (e->chunks == WARM_CHUNKS)
		e->warm_kib = resident;
	if (due || e->chunks == WARM_CHUNKS)
		line_print(e, resident);
	if (e->warm_kib)
		e->most_kib = MAX_OF(e->most_kib, resident);
	if (e->chunks >= ALLOCATING_CHUNKS)
		o->count(true);
}

static bool is_over(const struct endless *e)
{
	const struct endless_options *o = e->options;

	if (o->seconds)
		return now_ns() - e->start_ns >= o->seconds * 1000000000;
	return e->chunks >= (uint64_t)o->chunks;
}

static void books_check(const struct endless *e)
{
	const struct endless_options *o = e->options;
	const struct stream_config *config = &sana_model_config(o->model)->stream;
	const int first = config->first_chunk_latents[config->first_chunks - 1];
	const uint64_t latents =
		(uint64_t)first + (e->chunks - 1) * (uint64_t)config->chunk_latents;
	struct sana_statistics s;

	sana_stream_statistics(e->stream, &s);
	print_message("%llu chunks, %llu frames, %llu prompts, %llu re-basings\n",
		      (unsigned long long)s.chunks, (unsigned long long)s.frames_out,
		      (unsigned long long)s.prompts, (unsigned long long)s.rebases);
	assert_int_equal(e->bad, 0);
	assert_int_equal(s.frames_in, e->pushed);
	assert_int_equal(s.frames_out, e->pushed);
	assert_int_equal(e->pulled, e->pushed);
	assert_int_equal(s.chunks, e->chunks);
	assert_int_equal(s.latent, latents);
	assert_int_equal(s.prompts, e->prompts);
	assert_int_equal(e->changes, e->prompts);
	assert_int_equal(s.frames_dropped + s.chunks_dropped + s.states_discarded, 0);
	assert_int_equal(s.resets + s.recaches + s.failures, 0);
	/* Positions pass the limit by less than a chunk before they are moved back. */
	assert_true(s.rebases >= (latents - (uint64_t)config->chunk_latents) /
					 (uint64_t)(o->rebase_latents + config->chunk_latents));
	assert_true(s.rebases <= latents / (uint64_t)o->rebase_latents);
}

static void memory_check(const struct endless *e)
{
	if (!e->options->allocated)
		return;
	print_message("RSS %ld KiB after chunk %d, at most %ld KiB later; %llu allocations after "
		      "chunk %d\n",
		      e->warm_kib, WARM_CHUNKS, e->most_kib,
		      (unsigned long long)e->options->allocated(), ALLOCATING_CHUNKS);
	assert_true(e->warm_kib > 0);
	assert_true(e->most_kib - e->warm_kib <= growth_allowed_kib);
	assert_int_equal(e->options->allocated(), 0);
}

void endless_run(const struct endless_options *options)
{
	const size_t bytes = (size_t)options->width * (size_t)options->height * 3;
	struct endless e = { .options = options, .start_ns = now_ns(), .report_ns = now_ns() };
	struct sana_stream_options stream;
	struct sana_error error = { 0 };

	sana_stream_options_init(&stream);
	stream.width = options->width;
	stream.height = options->height;
	stream.rebase_latents = options->rebase_latents;
	if (sana_stream_open(options->model, &stream, &e.stream, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	assert_int_equal(sana_stream_set_latent_sink(e.stream, latents_look, &e, NULL), 0);
	e.source = malloc(bytes);
	e.edited = malloc(bytes);
	assert_true(e.source && e.edited);
	while (!is_over(&e)) {
		chunk_run(&e);
		if (options->allocated)
			books_keep(&e);
	}
	if (options->allocated)
		options->count(false);
	if (e.chunks != e.report_chunk)
		line_print(&e, resident_kib());
	assert_int_equal(sana_stream_finish(e.stream, &error), 0);
	stages_run(&e);
	assert_true(sana_stream_is_drained(e.stream));
	books_check(&e);
	memory_check(&e);
	(void)sana_stream_close(e.stream);
	free(e.source);
	free(e.edited);
}
