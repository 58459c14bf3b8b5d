/* Streams of the demo model for tests. */
#include "tests/common/stream_fixture.h"

#include <math.h>
#include <png.h>

#include "tests/common/expected.h"

static const char source_path[] = EXPECTED_DEMO "/expected/source.png";

enum { PICTURE_BYTES = FIXTURE_WIDTH * FIXTURE_HEIGHT * 3 };

/* ------------------------------------------------------------------------------------ fixture */

static uint8_t *source_read(void)
{
	png_image image = { .version = PNG_IMAGE_VERSION };
	uint8_t *pixels;

	if (!png_image_begin_read_from_file(&image, source_path))
		fail_msg("%s: %s", source_path, image.message);
	assert_int_equal(image.width, FIXTURE_WIDTH);
	assert_int_equal(image.height, FIXTURE_HEIGHT * FIXTURE_SOURCE_FRAMES);
	image.format = PNG_FORMAT_RGB;
	pixels = malloc(PNG_IMAGE_SIZE(image));
	assert_non_null(pixels);
	if (!png_image_finish_read(&image, NULL, pixels, 0, NULL))
		fail_msg("%s: %s", source_path, image.message);
	return pixels;
}

static char *rule_text(const json_t *rules, const char *name)
{
	const char *text = json_string_value(json_object_get(rules, name));

	assert_non_null(text);
	return strdup(text);
}

static struct sana_prompt *prompt_create(struct sana_model *model, const char *text)
{
	struct sana_error error = { 0 };
	struct sana_prompt *prompt;

	if (sana_prompt_create(model, text, &prompt, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return prompt;
}

struct sana_model *stream_fixture_model(enum sana_weights_mode weights, int threads)
{
	const struct sana_model_options options = {
		.directory = EXPECTED_DEMO,
		.threads = threads,
		.weights = weights,
	};
	struct sana_error error = { 0 };
	struct sana_model *model;

	if (sana_model_open(&options, &model, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return model;
}

int stream_fixture_setup(void **state)
{
	struct stream_fixture *fixture = calloc(1, sizeof(*fixture));
	json_t *rules = expected_rules();

	assert_non_null(fixture);
	assert_non_null(rules);
	fixture->source = source_read();
	fixture->text_a = rule_text(rules, "prompt_a");
	fixture->text_b = rule_text(rules, "prompt_b");
	json_decref(rules);
	fixture->model = stream_fixture_model(SANA_WEIGHTS_WIDENED, 1);
	fixture->prompt_a = prompt_create(fixture->model, fixture->text_a);
	fixture->prompt_b = prompt_create(fixture->model, fixture->text_b);
	*state = fixture;
	return 0;
}

int stream_fixture_teardown(void **state)
{
	struct stream_fixture *fixture = *state;

	(void)sana_prompt_unref(fixture->prompt_a);
	(void)sana_prompt_unref(fixture->prompt_b);
	(void)sana_model_unref(fixture->model);
	free(fixture->text_a);
	free(fixture->text_b);
	free(fixture->source);
	free(fixture);
	return 0;
}

struct sana_stream_options stream_fixture_small(void)
{
	struct sana_stream_options options;

	sana_stream_options_init(&options);
	options.width = FIXTURE_SMALL_WIDTH;
	options.height = FIXTURE_SMALL_HEIGHT;
	return options;
}

struct sana_stream *stream_fixture_open(const struct stream_fixture *fixture,
					const struct sana_stream_options *options)
{
	struct sana_error error = { 0 };
	struct sana_stream *stream;

	if (sana_stream_open(fixture->model, options, &stream, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return stream;
}

uint64_t stream_fixture_prompt(struct sana_stream *stream, struct sana_prompt *prompt,
			       enum sana_prompt_switch mode)
{
	struct sana_error error = { 0 };
	uint64_t ticket = 0;

	if (sana_stream_set_prompt(stream, prompt, mode, &ticket, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	assert_true(ticket > 0);
	return ticket;
}

struct sana_picture stream_fixture_picture(const struct stream_fixture *fixture, uint64_t i,
					   int width, int height)
{
	const uint64_t period = 2 * (FIXTURE_SOURCE_FRAMES - 1), at = i % period;
	const uint64_t frame = at < FIXTURE_SOURCE_FRAMES ? at : period - at;

	assert_true(width <= FIXTURE_WIDTH && height <= FIXTURE_HEIGHT);
	return (struct sana_picture){
		.rgb = fixture->source + frame * PICTURE_BYTES,
		.row_bytes = FIXTURE_WIDTH * 3,
		.width = width,
		.height = height,
	};
}

int64_t stream_fixture_time(uint64_t frame)
{
	return FIXTURE_FIRST_NS + (int64_t)frame * FIXTURE_FRAME_NS;
}

struct sana_statistics stream_fixture_statistics(struct sana_stream *stream)
{
	struct sana_statistics statistics;

	sana_stream_statistics(stream, &statistics);
	return statistics;
}

/* ---------------------------------------------------------------------------------- recording */

/* Room for one more of `bytes` each behind `count` of them. */
static void *grown(void *list, int count, int capacity, size_t bytes)
{
	if (count <= capacity)
		return list;
	list = realloc(list, 2 * (size_t)count * bytes);
	assert_non_null(list);
	return list;
}

static void latents_record(void *context, uint64_t chunk, int latents, const float *latent,
			   const float *source)
{
	struct recording *r = context;
	const size_t bytes = r->latent_floats * sizeof(float), at = (size_t)r->latents;
	const int chunks = r->chunks + 1, all = r->latents + latents;

	r->chunk_index = grown(r->chunk_index, chunks, r->chunk_capacity, sizeof(uint64_t));
	r->chunk_latents = grown(r->chunk_latents, chunks, r->chunk_capacity, sizeof(int));
	r->chunk_capacity = chunks > r->chunk_capacity ? 2 * chunks : r->chunk_capacity;
	r->latent = grown(r->latent, all, r->latent_capacity, bytes);
	r->source = grown(r->source, all, r->latent_capacity, bytes);
	r->latent_capacity = all > r->latent_capacity ? 2 * all : r->latent_capacity;
	r->chunk_index[r->chunks] = chunk;
	r->chunk_latents[r->chunks] = latents;
	r->chunks = chunks;
	memcpy(r->latent + at * r->latent_floats, latent, (size_t)latents * bytes);
	memcpy(r->source + at * r->latent_floats, source, (size_t)latents * bytes);
	r->latents = all;
}

struct recording *recording_open(const struct stream_fixture *fixture,
				 const struct sana_stream_options *options,
				 struct sana_prompt *prompt)
{
	struct recording *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->fixture = fixture;
	r->stream = stream_fixture_open(fixture, options);
	r->width = r->stream->width;
	r->height = r->stream->height;
	r->picture_bytes = (size_t)r->width * (size_t)r->height * 3;
	r->latent_floats = (size_t)(r->width / FIXTURE_RATIO) *
			   (size_t)(r->height / FIXTURE_RATIO) * FIXTURE_CHANNELS;
	assert_int_equal(sana_stream_set_latent_sink(r->stream, latents_record, r, NULL), 0);
	if (prompt)
		(void)stream_fixture_prompt(r->stream, prompt, SANA_SWITCH_INVALID);
	return r;
}

void recording_close(struct recording *r)
{
	(void)sana_stream_close(r->stream);
	free(r->chunk_index);
	free(r->chunk_latents);
	free(r->latent);
	free(r->source);
	free(r->rgb);
	free(r->info);
	free(r);
}

void recording_pull(struct recording *r)
{
	struct sana_error error = { 0 };
	int result;

	for (;;) {
		const int all = r->frames + 1;
		struct sana_picture picture = { NULL, (size_t)r->width * 3, r->width, r->height };

		r->rgb = grown(r->rgb, all, r->frame_capacity, r->picture_bytes);
		r->info = grown(r->info, all, r->frame_capacity, sizeof(*r->info));
		r->frame_capacity = all > r->frame_capacity ? 2 * all : r->frame_capacity;
		picture.rgb = r->rgb + (size_t)r->frames * r->picture_bytes;
		result = sana_stream_pull(r->stream, &picture, &r->info[r->frames], &error);
		if (result < 0)
			fail_msg("%s: %s", error.name, error.text);
		if (result == 0)
			return;
		r->frames++;
	}
}

void recording_settle(struct recording *r)
{
	struct sana_error error = { 0 };
	enum sana_stage stage;
	int result;

	recording_pull(r);
	while ((result = sana_stream_step(r->stream, &stage, &error)) > 0)
		recording_pull(r);
	if (result < 0)
		fail_msg("%s: %s", error.name, error.text);
}

void recording_push(struct recording *r)
{
	const struct sana_picture picture =
		stream_fixture_picture(r->fixture, r->pushed, r->width, r->height);
	struct sana_error error = { 0 };
	const int result =
		sana_stream_push(r->stream, &picture, stream_fixture_time(r->pushed), &error);

	if (result < 0)
		fail_msg("%s: %s", error.name, error.text);
	assert_int_equal(result, 1);
	r->pushed++;
}

void recording_feed(struct recording *r, int frames)
{
	for (int i = 0; i < frames; i++) {
		recording_push(r);
		recording_settle(r);
	}
}

void recording_feed_chunks(struct recording *r, int chunks)
{
	recording_feed(r, stream_frames(r->stream, r->stream->options.first_chunk_latents, true) +
				  (chunks - 1) * FIXTURE_CHUNK_FRAMES);
}

void recording_finish(struct recording *r)
{
	assert_int_equal(sana_stream_finish(r->stream, NULL), 0);
	recording_settle(r);
	assert_true(sana_stream_is_drained(r->stream));
}

const float *recording_chunk(const struct recording *r, int n)
{
	size_t first = 0;

	assert_in_range(n, 0, r->chunks - 1);
	for (int i = 0; i < n; i++)
		first += (size_t)r->chunk_latents[i];
	return r->latent + first * r->latent_floats;
}

size_t recording_chunk_floats(const struct recording *r, int n)
{
	assert_in_range(n, 0, r->chunks - 1);
	return (size_t)r->chunk_latents[n] * r->latent_floats;
}

const uint8_t *recording_frame(const struct recording *r, int n)
{
	assert_in_range(n, 0, r->frames - 1);
	return r->rgb + (size_t)n * r->picture_bytes;
}

/* --------------------------------------------------------------------------------- comparison */

/* The first recorded frame of the n-th chunk recorded. */
static int chunk_frame(const struct recording *r, int n)
{
	for (int i = 0; i < r->frames; i++)
		if (r->info[i].chunk == r->chunk_index[n])
			return i;
	fail_msg("chunk %d has no frames", n);
	return 0;
}

double recording_chunk_distance(const struct recording *a, int first, const struct recording *b,
				int b_first, int count)
{
	size_t floats = 0;

	for (int i = 0; i < count; i++) {
		assert_int_equal(recording_chunk_floats(a, first + i),
				 recording_chunk_floats(b, b_first + i));
		floats += recording_chunk_floats(a, first + i);
	}
	return expected_relative_l2(recording_chunk(a, first), recording_chunk(b, b_first), floats);
}

void recording_assert_same(const struct recording *a, int a_first, const struct recording *b,
			   int b_first, int count)
{
	int compared = 0;

	for (int i = 0; i < count; i++) {
		const int at = chunk_frame(a, a_first + i), bt = chunk_frame(b, b_first + i);
		const int frames = stream_frames(a->stream, a->chunk_latents[a_first + i], false);

		assert_int_equal(a->chunk_latents[a_first + i], b->chunk_latents[b_first + i]);
		assert_memory_equal(recording_chunk(a, a_first + i),
				    recording_chunk(b, b_first + i),
				    recording_chunk_floats(a, a_first + i) * sizeof(float));
		for (int f = 0; f < frames && at + f < a->frames; f++) {
			if (a->info[at + f].chunk != a->chunk_index[a_first + i])
				break;
			assert_int_equal(b->info[bt + f].chunk, b->chunk_index[b_first + i]);
			assert_memory_equal(recording_frame(a, at + f), recording_frame(b, bt + f),
					    a->picture_bytes);
			compared++;
		}
	}
	print_message("%d chunks and %d frames are the same bits\n", count, compared);
}

double pictures_within_one(const uint8_t *a, const uint8_t *b, size_t bytes, int *ret_worst)
{
	size_t within = 0;
	int worst = 0;

	for (size_t i = 0; i < bytes; i++) {
		const int difference = abs((int)a[i] - (int)b[i]);

		within += difference <= 1;
		worst = MAX_OF(worst, difference);
	}
	*ret_worst = worst;
	return (double)within / (double)bytes;
}

bool floats_are_finite(const float *values, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!isfinite(values[i]))
			return false;
	return true;
}
