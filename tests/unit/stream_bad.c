/* What a model and a stream refuse: options, pictures, order, prompts, noise, memory. */
#include "tests/common/stream_fixture.h"

#include <errno.h>
#include <math.h>

#include "tests/common/expected.h"

/* Says what was answered, and that it has the form of every error. */
static void check_error(const struct sana_error *error, int result, const char *name)
{
	print_message("%s: %s\n", error->name, error->text);
	assert_true(result < 0);
	assert_int_equal(error->code, result);
	assert_string_equal(error->name, name);
	assert_true(strlen(error->text) > 20);
	assert_null(strchr(error->text, '\n'));
	assert_int_equal(error->text[strlen(error->text) - 1], '.');
}

/* -------------------------------------------------------------------------------------- model */

static struct sana_error refused_model(const struct sana_model_options *options, const char *name)
{
	struct sana_model *untouched = (struct sana_model *)-1, *model = untouched;
	struct sana_error error = { 0 };
	const int r = sana_model_open(options, &model, &error);

	check_error(&error, r, name);
	assert_ptr_equal(model, untouched);
	assert_int_equal(sana_model_open(options, &model, NULL), r);
	return error;
}

static void test_model_options(void **state)
{
	const struct sana_model_options none = { 0 };
	const struct sana_model_options both = { .directory = EXPECTED_DEMO, .shape = "2b" };
	const struct sana_model_options nowhere = { .directory = "models/nowhere" };
	const struct sana_model_options shape = { .shape = "3b" };
	const struct sana_model_options backend = { .directory = EXPECTED_DEMO,
						    .backend = "abacus" };
	const struct sana_model_options few = { .directory = EXPECTED_DEMO, .threads = -1 };
	const struct sana_model_options many = { .directory = EXPECTED_DEMO, .threads = 100000 };
	struct sana_error error;

	(void)state;
	(void)refused_model(&none, "model.options");
	(void)refused_model(&both, "model.options");
	(void)refused_model(&nowhere, "model.directory");
	error = refused_model(&shape, "model.config");
	assert_non_null(strstr(error.text, "2b"));
	error = refused_model(&backend, "backend.unknown");
	assert_non_null(strstr(error.text, "abacus"));
	assert_non_null(strstr(error.text, "cpu"));
	(void)refused_model(&few, "backend.open");
	(void)refused_model(&many, "backend.open");
}

/* "auto" opens on every machine; where it is not the best back end, there is a sentence that says why. */
static void test_backend_auto(void **state)
{
	const struct sana_model_options options = { .directory = EXPECTED_DEMO, .backend = "auto" };
	const struct sana_model_options gpu = { .directory = EXPECTED_DEMO, .backend = "cuda" };
	struct sana_model *model = NULL, *refused = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(sana_model_open(&options, &model, NULL), 0);
	print_message("auto is %s. %s\n", sana_model_backend(model),
		      sana_model_backend_note(model));
	if (strcmp(sana_model_backend(model), "cpu") == 0) {
		assert_non_null(strstr(sana_model_backend_note(model), "\"cuda\" does not start"));
		assert_true(sana_model_open(&gpu, &refused, &error) < 0);
		assert_int_equal(strncmp(error.name, "backend.", 8), 0);
		assert_string_equal(error.text, sana_model_backend_note(model));
	} else {
		assert_string_equal(sana_model_backend_note(model), "");
	}
	(void)sana_model_unref(model);
}

static void check_memory_text(const struct sana_error *error, int numbers)
{
	int found = 0;

	for (const char *at = error->text; (at = strstr(at, "iB")); at++)
		found++;
	assert_int_equal(found, numbers);
}

static void test_memory_limit_of_a_model(void **state)
{
	struct sana_model_options options = { .directory = EXPECTED_DEMO, .threads = 1 };
	struct sana_error error;

	(void)state;
	options.memory_limit_bytes = 1 << 20;
	for (int mode = SANA_WEIGHTS_AUTO; mode <= SANA_WEIGHTS_WIDENED; mode++) {
		options.weights = mode;
		error = refused_model(&options, "memory");
		check_memory_text(&error, 3);
	}
}

static struct sana_statistics opened_statistics(const struct sana_model_options *options, int width,
						int height, struct sana_error *ret_error)
{
	struct sana_stream_options stream_options;
	struct sana_statistics statistics = { 0 };
	struct sana_stream *stream;
	struct sana_model *model;

	assert_int_equal(sana_model_open(options, &model, NULL), 0);
	sana_stream_options_init(&stream_options);
	stream_options.width = width;
	stream_options.height = height;
	if (sana_stream_open(model, &stream_options, &stream, ret_error) == 0) {
		sana_stream_statistics(stream, &statistics);
		(void)sana_stream_close(stream);
	}
	(void)sana_model_unref(model);
	return statistics;
}

/* The limit is for both: it decides what is widened, and how large a stream may be. */
static void test_memory_limit_of_a_stream(void **state)
{
	struct sana_model_options options = { .directory = EXPECTED_DEMO, .threads = 1 };
	struct sana_error error = { 0 };
	struct sana_statistics wide, s;

	(void)state;
	options.weights = SANA_WEIGHTS_WIDENED;
	wide = opened_statistics(&options, 0, 0, &error);
	assert_int_equal(wide.mapped_bytes, 0);

	options.weights = SANA_WEIGHTS_AUTO;
	options.memory_limit_bytes = wide.model_bytes + wide.stream_bytes;
	s = opened_statistics(&options, 0, 0, &error);
	assert_int_equal(s.model_bytes, wide.model_bytes);
	assert_int_equal(s.mapped_bytes, 0);
	s = opened_statistics(&options, 512, 288, &error);
	assert_int_equal(s.stream_bytes, 0);
	check_error(&error, error.code, "memory");
	assert_int_equal(error.code, -ENOMEM);
	check_memory_text(&error, 2);

	options.memory_limit_bytes--;
	error = (struct sana_error){ 0 };
	s = opened_statistics(&options, 0, 0, &error);
	assert_int_equal(error.code, 0);
	print_message("widened %zu bytes; one byte less: %zu and %zu mapped\n", wide.model_bytes,
		      s.model_bytes, s.mapped_bytes);
	assert_true(s.model_bytes < wide.model_bytes && s.mapped_bytes > 0);
	assert_true(s.model_bytes + s.stream_bytes <= options.memory_limit_bytes);
}

/* ------------------------------------------------------------------------------------ options */

static struct sana_error refused_stream(const struct stream_fixture *fixture,
					const struct sana_stream_options *options, const char *name)
{
	struct sana_stream *untouched = (struct sana_stream *)-1, *stream = untouched;
	struct sana_error error = { 0 };
	const int r = sana_stream_open(fixture->model, options, &stream, &error);

	check_error(&error, r, name);
	assert_ptr_equal(stream, untouched);
	assert_int_equal(sana_stream_open(fixture->model, options, &stream, NULL), r);
	return error;
}

static void test_picture_sizes(void **state)
{
	static const int sizes[][2] = {
		{ 63, 48 },
		{ 64, 50 },
		{ 64, 0 },
		{ 0, 48 },
		{ -64, 48 },
		{ 64, -48 },
		{ 8, 8 },
		{ 16, 16 },
		{ 17008, 48 },
		{ 64, 17008 },
		{ 1, 1 },
		{ 2147483632, 48 },
		{ -2147483647 - 1, 64 },
	};
	struct sana_stream_options options = stream_fixture_small();
	struct sana_error error;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		options.width = sizes[i][0];
		options.height = sizes[i][1];
		error = refused_stream(*state, &options, "stream.options");
		if (i < 2) {
			assert_non_null(strstr(error.text, "multiples of 16"));
			assert_non_null(strstr(error.text, i ? "64x48" : "48x48"));
		}
	}
}

static size_t workspace_refused(const struct kernel_device *device, const void *params)
{
	(void)device, (void)params;
	return KERNEL_UNSUPPORTED;
}

/* Said when a stream is opened, with the op's name, and not with its first chunk. */
static void test_sizes_without_a_kernel(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct kernel_backend table = kernel_backend_cpu;
	struct sana_error error;

	table.workspace[KERNEL_OP_attention] = workspace_refused;
	fixture->model->backend.table = &table;
	error = refused_stream(fixture, &options, "stream.options");
	fixture->model->backend.table = &kernel_backend_cpu;
	assert_int_equal(error.code, -ENOTSUP);
	assert_non_null(strstr(error.text, "attention"));
	assert_non_null(strstr(error.text, "another back end"));
}

static void test_stream_options(void **state)
{
	static const float noise[FIXTURE_CHANNELS];
	const struct sana_stream_options good = stream_fixture_small();
	struct sana_stream_options bad[16];
	int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[n++].first_chunk_latents = 2;
	bad[n++].first_chunk_latents = 6;
	bad[n++].first_chunk_latents = -3;
	bad[n++].decode_latents = -1;
	bad[n++].decode_latents = MODEL_MAX_CHUNK_LATENTS + 1;
	bad[n++].rebase_latents = -1;
	bad[n++].health_limit = -1;
	bad[n++].health_limit = NAN;
	bad[n++].health_reset_after = -1;
	bad[n++].prompt_switch = SANA_SWITCH_COUNT;
	bad[n++].prompt_switch = -2;
	bad[n].noise = noise;
	bad[n++].noise_latents = 0;
	bad[n].noise = noise;
	bad[n++].noise_latents = -5;
	for (int i = 0; i < n; i++)
		(void)refused_stream(*state, &bad[i], "stream.options");
}

/* ------------------------------------------------------------------------------------- frames */

static void refused_push(struct recording *r, const struct sana_picture *picture, int64_t at,
			 const char *name)
{
	const struct sana_statistics before = stream_fixture_statistics(r->stream);
	struct sana_statistics after;
	struct sana_error error = { 0 };
	int result;

	result = sana_stream_push(r->stream, picture, at, &error);
	check_error(&error, result, name);
	assert_int_equal(sana_stream_push(r->stream, picture, at, NULL), result);
	after = stream_fixture_statistics(r->stream);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void test_pictures(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	const struct sana_picture good = stream_fixture_picture(fixture, 0, r->width, r->height);
	struct sana_picture bad[5] = { good, good, good, good, good };

	bad[0].width--;
	bad[1].height += FIXTURE_RATIO;
	bad[2].row_bytes = (size_t)r->width * 3 - 1;
	bad[3].rgb = NULL;
	bad[4].width = r->height;
	bad[4].height = r->width;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused_push(r, &bad[i], 0, "stream.picture");
	recording_feed_chunks(r, 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused_push(r, &bad[i], INT64_MAX, "stream.picture");
	recording_feed(r, FIXTURE_CHUNK_FRAMES);
	assert_int_equal(r->frames, 9 + FIXTURE_CHUNK_FRAMES);
	recording_close(r);
}

static void test_time_stamps_grow(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	const struct sana_picture picture = stream_fixture_picture(fixture, 0, r->width, r->height);

	recording_feed(r, 2);
	refused_push(r, &picture, stream_fixture_time(1), "stream.order");
	refused_push(r, &picture, stream_fixture_time(0), "stream.order");
	refused_push(r, &picture, INT64_MIN, "stream.order");
	/* What was refused leaves no mark: the next ones come as if it had not been. */
	recording_feed(r, 7);
	assert_int_equal(r->frames, 9);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(r->info[i].frame, i);
		assert_int_equal(r->info[i].timestamp_ns, stream_fixture_time((uint64_t)i));
	}
	recording_close(r);
}

static void test_no_prompt(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, NULL);
	const struct sana_picture picture = stream_fixture_picture(fixture, 0, r->width, r->height);

	refused_push(r, &picture, 0, "stream.prompt");
	(void)stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_INVALID);
	recording_feed_chunks(r, 1);
	assert_int_equal(r->frames, 9);
	recording_close(r);
}

static void test_push_after_finish(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	const struct sana_picture picture = stream_fixture_picture(fixture, 0, r->width, r->height);

	recording_feed(r, 2);
	assert_int_equal(sana_stream_finish(r->stream, NULL), 0);
	refused_push(r, &picture, stream_fixture_time(50), "stream.finished");
	assert_int_equal(sana_stream_finish(r->stream, NULL), 0);
	recording_finish(r);
	assert_int_equal(r->frames, 2);
	refused_push(r, &picture, stream_fixture_time(51), "stream.finished");
	recording_close(r);
}

/* Nothing is lost by pushing too early or by pulling into the wrong picture. */
static void test_no_room_and_wrong_targets(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	const struct sana_picture next = stream_fixture_picture(fixture, 0, r->width, r->height);
	uint8_t one_pixel[3];
	struct sana_picture target = { one_pixel, 3, 1, 1 };
	enum sana_stage stage = SANA_STAGE_NONE;
	struct sana_frame_info info;
	struct sana_error error = { 0 };
	int result;

	recording_push(r);
	assert_int_equal(sana_stream_push(r->stream, &next, stream_fixture_time(1), &error), 0);
	recording_settle(r);
	recording_feed(r, 7);
	recording_push(r);
	assert_int_equal(sana_stream_pull(r->stream, &target, &info, &error), 0);
	while (stage != SANA_STAGE_DECODE)
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	result = sana_stream_pull(r->stream, &target, &info, &error);
	check_error(&error, result, "stream.picture");
	target = (struct sana_picture){ one_pixel, (size_t)r->width * 3 - 1, r->width, r->height };
	result = sana_stream_pull(r->stream, &target, &info, &error);
	check_error(&error, result, "stream.picture");
	target = (struct sana_picture){ NULL, (size_t)r->width * 3, r->width, r->height };
	result = sana_stream_pull(r->stream, &target, &info, &error);
	check_error(&error, result, "stream.picture");
	recording_settle(r);
	recording_finish(r);
	assert_int_equal(r->frames, 9);
	for (int i = 0; i < r->frames; i++)
		assert_int_equal(r->info[i].frame, i);
	recording_close(r);
}

/* ------------------------------------------------------------------------------------ prompts */

static void refused_prompt(struct sana_stream *stream, struct sana_prompt *prompt, int mode,
			   const char *name)
{
	struct sana_error error = { 0 };
	uint64_t ticket = 77;
	int r;

	r = sana_stream_set_prompt(stream, prompt, mode, &ticket, &error);
	check_error(&error, r, name);
	assert_int_equal(ticket, 77);
}

/* A caption as a model with other widths makes it: this one's memory must not be read by its size. */
static struct sana_prompt *foreign_prompt(int channels, int rows)
{
	struct sana_model *model = calloc(1, sizeof(*model));
	_cleanup_(freep) float *features = calloc((size_t)channels * (size_t)rows, sizeof(float));
	struct sana_prompt *prompt;

	assert_non_null(model);
	assert_non_null(features);
	model->config.dit.caption_channels = channels;
	model->config.dit.max_tokens = rows;
	assert_int_equal(sana_prompt_from_features(model, features, rows, &prompt, NULL), 0);
	free(model);
	return prompt;
}

static void test_prompts(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct sana_stream *stream = stream_fixture_open(fixture, &options);
	struct sana_prompt *narrow = foreign_prompt(FIXTURE_CHANNELS - 1, 4);
	struct sana_prompt *wide = foreign_prompt(FIXTURE_CHANNELS + 1, 4);
	struct sana_prompt *longer = foreign_prompt(FIXTURE_CHANNELS, 33);
	struct sana_prompt *fitting = foreign_prompt(FIXTURE_CHANNELS, 32);

	refused_prompt(stream, narrow, SANA_SWITCH_KEEP, "prompt.features");
	refused_prompt(stream, wide, SANA_SWITCH_KEEP, "prompt.features");
	refused_prompt(stream, longer, SANA_SWITCH_KEEP, "prompt.features");
	refused_prompt(stream, fixture->prompt_a, SANA_SWITCH_COUNT, "stream.options");
	refused_prompt(stream, fixture->prompt_a, -5, "stream.options");
	assert_int_equal(stream_fixture_prompt(stream, fitting, SANA_SWITCH_KEEP), 1);
	(void)sana_stream_close(stream);
	(void)sana_prompt_unref(narrow);
	(void)sana_prompt_unref(wide);
	(void)sana_prompt_unref(longer);
	(void)sana_prompt_unref(fitting);
}

static void refused_features(struct sana_model *model, const float *features, int rows)
{
	struct sana_prompt *untouched = (struct sana_prompt *)-1, *prompt = untouched;
	struct sana_error error = { 0 };
	int r;

	r = sana_prompt_from_features(model, features, rows, &prompt, &error);
	check_error(&error, r, "prompt.features");
	assert_ptr_equal(prompt, untouched);
}

static void test_features(void **state)
{
	const struct stream_fixture *fixture = *state;
	float features[2 * FIXTURE_CHANNELS] = { 0 };

	refused_features(fixture->model, features, 0);
	refused_features(fixture->model, features, -1);
	refused_features(fixture->model, features, 33);
	features[2 * FIXTURE_CHANNELS - 1] = NAN;
	refused_features(fixture->model, features, 2);
	features[2 * FIXTURE_CHANNELS - 1] = -INFINITY;
	refused_features(fixture->model, features, 2);
}

/* -------------------------------------------------------------------------------------- noise */

/* Pushes frames until a step fails; returns how many were taken. */
static int feed_to_error(struct recording *r, struct sana_error *ret_error)
{
	enum sana_stage stage;
	int taken = 0, result;

	for (;;) {
		recording_push(r);
		taken++;
		assert_true(taken < 60);
		while ((result = sana_stream_step(r->stream, &stage, ret_error)) > 0)
			continue;
		if (result < 0)
			return taken;
		recording_settle(r);
	}
}

static void test_noise_that_ends(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	_cleanup_(freep) float *noise = calloc(FIXTURE_CHANNELS * 10 * 4 * 3, sizeof(*noise));
	struct sana_error error = { 0 };
	struct sana_statistics s;
	struct recording *r;

	options.noise = noise;
	options.noise_latents = 4;
	r = recording_open(fixture, &options, fixture->prompt_a);
	assert_int_equal(feed_to_error(r, &error), 9);
	check_error(&error, error.code, "stream.noise");
	recording_close(r);

	options.noise_latents = 10;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, 2);
	assert_int_equal(feed_to_error(r, &error), FIXTURE_CHUNK_FRAMES);
	check_error(&error, error.code, "stream.noise");
	assert_int_equal(r->chunks, 2);
	/* The stream starts afresh, and so does the noise. */
	recording_feed_chunks(r, 2);
	assert_int_equal(r->chunks, 4);
	s = stream_fixture_statistics(r->stream);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);
	assert_int_equal(s.frames_dropped, FIXTURE_CHUNK_FRAMES);
	recording_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_options),
		cmocka_unit_test(test_backend_auto),
		cmocka_unit_test(test_memory_limit_of_a_model),
		cmocka_unit_test(test_memory_limit_of_a_stream),
		cmocka_unit_test(test_picture_sizes),
		cmocka_unit_test(test_sizes_without_a_kernel),
		cmocka_unit_test(test_stream_options),
		cmocka_unit_test(test_pictures),
		cmocka_unit_test(test_time_stamps_grow),
		cmocka_unit_test(test_no_prompt),
		cmocka_unit_test(test_push_after_finish),
		cmocka_unit_test(test_no_room_and_wrong_targets),
		cmocka_unit_test(test_prompts),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_noise_that_ends),
	};

	return cmocka_run_group_tests_name("stream bad", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
