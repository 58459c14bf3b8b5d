/* sana-edit end to end: times, sound, prompts and latents of real runs, at 32x32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/sana.h"
#include "media/av.h"
#include "media/convert.h"
#include "media/source.h"
#include "tests/common/media_clip.h"
#include "tests/common/media_scratch.h"

enum { SIDE = 32, BYTES = 3 * SIDE * SIDE, MAX_FRAMES = 64 };

static const int64_t MS_NS = 1000000;
static const int64_t SECOND_NS = 1000000000;

/* The event of a kind, the `which`-th one; borrowed from `events`. */
static const json_t *event_find(const json_t *events, const char *kind, int which)
{
	const json_t *event;
	size_t i;

	json_array_foreach(events, i,
			   event) if (strcmp(json_string_value(json_object_get(event, "event")),
					     kind) == 0 &&
				      which-- == 0) return event;
	return NULL;
}

static long long number(const json_t *event, const char *key)
{
	assert_non_null(event);
	assert_true(json_is_integer(json_object_get(event, key)));
	return json_integer_value(json_object_get(event, key));
}

/* Runs sana-edit with what every run here has in common; the events it wrote. */
static json_t *edit(const char *in, const char *out, const char *more)
{
	const char *build = getenv("BUILD");
	json_t *events = json_array();
	char command[2048], line[2048];
	FILE *pipe;
	int status;

	(void)snprintf(
		command, sizeof(command),
		"%s/bin/sana-edit '%s' '%s' --json --size %dx%d --threads 1 --backend cpu %s",
		build ? build : "build", in, out, SIDE, SIDE, more);
	pipe = popen(command, "re");
	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe)) {
		json_t *event = json_loads(line, 0, NULL);

		print_message("%s", line);
		assert_non_null(event);
		assert_int_equal(json_array_append_new(events, event), 0);
	}
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	return events;
}

struct frames {
	int count;
	int64_t time_ns[MAX_FRAMES];
	uint8_t rgb[MAX_FRAMES][BYTES];
};

static struct frames *frames_read(const char *path)
{
	const struct media_source_wish wish = { .path = path, .threads = 1 };
	struct frames *frames = calloc(1, sizeof(*frames));
	struct media_source *source = NULL;
	struct media_convert *convert;
	struct media_picture picture;

	assert_non_null(frames);
	assert_int_equal(media_source_open(&wish, &source, NULL), 0);
	assert_int_equal(media_convert_create(SIDE, SIDE, true, &convert, NULL), 0);
	while (media_source_read(source, &picture, NULL) > 0) {
		assert_in_range(frames->count, 0, MAX_FRAMES - 1);
		assert_int_equal(media_convert_run(convert, &picture, frames->rgb[frames->count],
						   3 * SIDE, NULL),
				 0);
		frames->time_ns[frames->count++] = picture.timestamp_ns;
	}
	(void)media_convert_destroy(convert);
	(void)media_source_close(source);
	return frames;
}

/* ------------------------------------------------------------------------------------- times */

static void times_and_sound_are_kept(void **state)
{
	static const int64_t times_ms[] = {
		0, 33, 67, 250, 260, 500, 700, 733, 800, 960, 1000, 1040
	};
	enum { FRAMES = (int)ARRAY_SIZE(times_ms) };
	const char *in = media_scratch_path("in.mp4"), *out = media_scratch_path("out.mp4");
	struct clip_track before, after;
	struct frames *frames;
	json_t *events;

	(void)state;
	clip_make(&(struct clip_wish){ .path = in,
				       .codec = "mpeg4",
				       .width = 64,
				       .height = 48,
				       .frames = FRAMES,
				       .times_ms = times_ms,
				       .audio = "aac",
				       .audio_ms = 1100 });
	events = edit(in, out, "--prompt 'keep it as it is'");
	assert_int_equal(number(event_find(events, "done", 0), "frames"), FRAMES);
	assert_true(json_is_true(json_object_get(event_find(events, "start", 0), "audio")));
	json_decref(events);
	frames = frames_read(out);
	assert_int_equal(frames->count, FRAMES);
	for (int i = 0; i < FRAMES; i++)
		assert_int_equal(frames->time_ns[i], times_ms[i] * MS_NS);
	free(frames);
	before = clip_read_track(in, true);
	after = clip_read_track(out, true);
	print_message("%d times, %d packets of sound\n", FRAMES, after.packets);
	assert_int_equal(after.packets, before.packets);
	assert_int_equal(after.payload, before.payload);
	assert_int_equal(after.times, before.times);
}

static void the_rate_can_be_made_constant(void **state)
{
	/* At 10 a second from 0: which source frame each output frame shows. */
	static const int64_t times_ms[] = { 0, 40, 80, 300, 320, 340, 620 };
	const char *in = media_scratch_path("in.mkv"), *out = media_scratch_path("out.mkv");
	struct frames *frames;

	(void)state;
	clip_make(&(struct clip_wish){ .path = in,
				       .codec = "mpeg4",
				       .width = 64,
				       .height = 48,
				       .frames = 7,
				       .times_ms = times_ms });
	json_decref(edit(in, out, "--prompt 'keep it as it is' --codec ffv1 --fps 10"));
	frames = frames_read(out);
	print_message("%d frames\n", frames->count);
	assert_int_equal(frames->count, 7); /* 0 … 600 ms; the one at 620 lasts until 660 */
	for (int i = 0; i < frames->count; i++)
		assert_int_equal(frames->time_ns[i], 100 * i * MS_NS);
	free(frames);
}

static void a_part_can_be_taken(void **state)
{
	const char *in = media_scratch_path("in.mp4"), *out = media_scratch_path("out.mp4");

	(void)state;
	clip_make(&(struct clip_wish){ .path = in,
				       .codec = "mpeg4",
				       .width = 64,
				       .height = 48,
				       .frames = 50,
				       .audio = "aac",
				       .audio_ms = 2000 });
	json_decref(edit(in, out, "--prompt 'keep it as it is' --duration 0.4s"));
	assert_int_equal(clip_read_track(out, false).packets, 10);
	assert_in_range(clip_read_track(out, true).end_ms, 380, 450);
	json_decref(edit(in, media_scratch_path("silent.mp4"),
			 "--prompt 'keep it as it is' --duration '#3' --no-audio"));
	assert_int_equal(clip_read_track(media_scratch_path("silent.mp4"), false).packets, 3);
	assert_int_equal(clip_read_track(media_scratch_path("silent.mp4"), true).packets, 0);
}

/* ----------------------------------------------------------------------------------- prompts */

/* The frame that is announced is the first one that differs, and none lies before the time asked. */
static void switch_check(const char *mode, int asked)
{
	char plain[256], switched[512];
	struct frames *a, *b;
	json_t *events;
	int announced;

	(void)snprintf(plain, sizeof(plain),
		       "--prompt 'invert the colors' --codec ffv1 --overwrite --duration '#27' "
		       "--switch %s",
		       mode);
	(void)snprintf(switched, sizeof(switched), "%s --prompt-at '#%d' 'a pencil sketch'", plain,
		       asked);
	json_decref(edit("pattern:", media_scratch_path("a.mkv"), plain));
	events = edit("pattern:", media_scratch_path("b.mkv"), switched);
	assert_string_equal(json_string_value(json_object_get(
				    event_find(events, "prompt_applied", 1), "prompt")),
			    "a pencil sketch");
	announced = (int)number(event_find(events, "prompt_applied", 1), "frame");
	json_decref(events);
	a = frames_read(media_scratch_path("a.mkv"));
	b = frames_read(media_scratch_path("b.mkv"));
	print_message("%s: asked for frame %d, announced at %d\n", mode, asked, announced);
	assert_int_equal(a->count, 27);
	assert_int_equal(b->count, 27);
	/* First chunk 9 frames, then 6 each. */
	assert_int_equal(announced, asked <= 9 ? 9 : 15);
	for (int i = 0; i < announced; i++)
		assert_memory_equal(a->rgb[i], b->rgb[i], BYTES);
	assert_memory_not_equal(a->rgb[announced], b->rgb[announced], BYTES);
	free(a);
	free(b);
}

static void prompts_begin_where_it_is_announced(void **state)
{
	(void)state;
	switch_check("restart", 9);
	switch_check("restart", 10);
	switch_check("keep", 9);
	switch_check("keep", 12);
	switch_check("recache", 5);
}

/* ----------------------------------------------------------------------------------- latents */

struct collected {
	float *latents, *source; /* [T][h][w][C] as the engine gives them */
	size_t count, values;	 /* latents; values of one */
};

static void collect(void *context, uint64_t chunk, int frames, const float *latents,
		    const float *source)
{
	struct collected *c = context;
	const size_t bytes = (size_t)frames * c->values * sizeof(float);

	(void)chunk;
	memcpy(c->latents + c->count * c->values, latents, bytes);
	memcpy(c->source + c->count * c->values, source, bytes);
	c->count += (size_t)frames;
}

/* The same run through sana.h, here. */
static void run_here(struct collected *c, int frames)
{
	const struct media_source_wish pattern = {
		.path = "pattern:",
		.width = SIDE,
		.height = SIDE,
		.duration_ns = SECOND_NS,
	};
	const struct sana_model_options options = { .directory = "models/demo", .threads = 1 };
	struct sana_stream_options stream_options;
	struct media_source *source = NULL;
	struct sana_model *model = NULL;
	struct sana_prompt *prompt = NULL;
	struct sana_stream *stream = NULL;
	struct media_picture picture;
	struct sana_frame_info info;
	enum sana_stage stage;
	uint8_t out[BYTES];
	struct sana_picture to = { out, 3 * SIDE, SIDE, SIDE };
	uint64_t ticket;

	sana_stream_options_init(&stream_options);
	stream_options.width = stream_options.height = SIDE;
	stream_options.seed = 5;
	assert_int_equal(sana_model_open(&options, &model, NULL), 0);
	assert_int_equal(sana_prompt_create(model, "golden hour", &prompt, NULL), 0);
	assert_int_equal(sana_stream_open(model, &stream_options, &stream, NULL), 0);
	assert_int_equal(sana_stream_set_prompt(stream, prompt, SANA_SWITCH_INVALID, &ticket, NULL),
			 0);
	assert_int_equal(sana_stream_set_latent_sink(stream, collect, c, NULL), 0);
	assert_int_equal(media_source_open(&pattern, &source, NULL), 0);
	for (int i = 0; i <= frames; i++) {
		if (i == frames) {
			assert_int_equal(sana_stream_finish(stream, NULL), 0);
		} else {
			assert_int_equal(media_source_read(source, &picture, NULL), 1);
			assert_int_equal(sana_stream_push(stream,
							  &(struct sana_picture){
								  (uint8_t *)picture.plane[0],
								  3 * SIDE, SIDE, SIDE },
							  picture.timestamp_ns, NULL),
					 1);
		}
		while (sana_stream_step(stream, &stage, NULL) > 0)
			while (sana_stream_pull(stream, &to, &info, NULL) > 0)
				;
	}
	(void)media_source_close(source);
	(void)sana_stream_close(stream);
	(void)sana_prompt_unref(prompt);
	(void)sana_model_unref(model);
}

static const struct safetensors_tensor *tensor(const struct safetensors *file, const char *name)
{
	for (size_t i = 0; i < safetensors_count(file); i++)
		if (strcmp(safetensors_at(file, i)->name, name) == 0)
			return safetensors_at(file, i);
	fail_msg("no %s", name);
	return NULL;
}

/* [C][T][h][w] of the file against [T][h][w][C]. */
static void latents_compare(const struct safetensors_tensor *t, const float *wanted, size_t count)
{
	enum { CHANNELS = 64, AREA = SIDE / 16 * (SIDE / 16) };
	float value;

	assert_int_equal(t->dtype, SAFETENSORS_F32);
	assert_int_equal(t->rank, 4);
	assert_int_equal(t->shape[0], CHANNELS);
	assert_int_equal(t->shape[1], count);
	assert_int_equal(t->shape[2], SIDE / 16);
	assert_int_equal(t->shape[3], SIDE / 16);
	for (size_t c = 0; c < CHANNELS; c++)
		for (size_t i = 0; i < count; i++)
			for (size_t p = 0; p < AREA; p++) {
				memcpy(&value,
				       (const char *)t->data + 4 * ((c * count + i) * AREA + p), 4);
				if (value != wanted[(i * AREA + p) * CHANNELS + c])
					fail_msg("%s: channel %zu, latent %zu, place %zu", t->name,
						 c, i, p);
			}
}

static void latents_are_those_of_the_stream(void **state)
{
	enum { FRAMES = 21, VALUES = 64 * (SIDE / 16) * (SIDE / 16) };
	struct collected here = { .values = VALUES };
	struct safetensors *file = NULL;
	char more[512];

	(void)state;
	here.latents = calloc((size_t)FRAMES * VALUES, sizeof(float));
	here.source = calloc((size_t)FRAMES * VALUES, sizeof(float));
	assert_true(here.latents && here.source);
	(void)snprintf(more, sizeof(more),
		       "--prompt 'golden hour' --duration '#%d' --seed 5 --save-latents '%s'",
		       FRAMES, media_scratch_path("l.safetensors"));
	json_decref(edit("pattern:", media_scratch_path("a.mp4"), more));
	run_here(&here, FRAMES);
	assert_int_equal(safetensors_open(media_scratch_path("l.safetensors"), &file, NULL), 0);
	print_message("%zu latents\n", here.count);
	assert_int_equal(here.count, 11); /* 9 + 6 + 6 frames: 5 + 3 + 3 */
	latents_compare(tensor(file, "latents"), here.latents, here.count);
	latents_compare(tensor(file, "source_latents"), here.source, here.count);
	assert_int_equal(tensor(file, "chunk_latents")->shape[0], 3);
	safetensors_close(file);
	free(here.latents);
	free(here.source);
}

#define CASE(function) \
	cmocka_unit_test_setup_teardown(function, media_scratch_setup, media_scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(times_and_sound_are_kept),
		CASE(the_rate_can_be_made_constant),
		CASE(a_part_can_be_taken),
		CASE(prompts_begin_where_it_is_announced),
		CASE(latents_are_those_of_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
