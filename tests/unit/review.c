/* What a review found: an asynchronous back end's memory, plans of what is not there, hostile sizes. */
#include "tests/common/stream_fixture.h"

#include <errno.h>

#include "base/file.h"
#include "tests/common/small_model.h"

/* ---------------------------------------------------------------------- waiting and planning */

/* The table has no place for a context. */
static int waits;

static int wait_counted(struct kernel_device *device, struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	waits++;
	return 0;
}

/* Whoever waits gives his memory back next: so the copies before the failure must have passed. */
static void test_waits_after_a_failure(void **state)
{
	struct kernel_backend table = kernel_backend_cpu;
	const struct backend backend = { .table = &table };
	struct op_context op = { .backend = &backend };

	(void)state;
	table.queue_wait = wait_counted;
	waits = 0;
	assert_int_equal(op_wait(&op), 0);
	op.status = -EIO;
	assert_int_equal(op_wait(&op), -EIO);
	assert_int_equal(waits, 2);
	op.planning = true;
	assert_int_equal(op_wait(&op), -EIO);
	assert_int_equal(waits, 2);
}

/* A back end without an op is found out before anything is taken, not in the first chunk. */
static void test_plans_know_missing_ops(void **state)
{
	struct kernel_backend table = kernel_backend_cpu;
	struct kernel_device *device;
	struct backend backend = { .table = &table };
	struct op_context op = { .backend = &backend, .planning = true };
	const struct kernel_device_options options = { .threads = 1 };

	(void)state;
	assert_int_equal(table.open(&options, NULL, 0, &device), 0);
	backend.device = device;
	OP(&op, euler_step, { .count = 1 });
	assert_int_equal(op.status, 0);
	table.run[KERNEL_OP_euler_step] = NULL;
	OP(&op, euler_step, { .count = 1 });
	assert_int_equal(op.status, -ENOTSUP);
	assert_int_equal(op.failed, KERNEL_OP_euler_step);
	table.close(device);
}

/* Mapped weights want a panel to be widened in, of which a plan without their files must know. */
static void test_plans_are_what_is_taken(void **state)
{
	struct sana_plan *plan = calloc(1, sizeof(*plan));
	struct sana_model_options options = { .without_text = true, .threads = 1 };
	struct sana_stream_options stream_options;
	struct sana_statistics statistics;
	struct sana_stream *stream;
	struct sana_model *model;
	struct scratch scratch;

	(void)state;
	assert_non_null(plan);
	scratch_create(&scratch);
	small_model_write(&scratch);
	options.directory = scratch.path;
	sana_stream_options_init(&stream_options);
	for (int mode = SANA_WEIGHTS_MAPPED; mode <= SANA_WEIGHTS_WIDENED; mode++) {
		options.weights = mode;
		assert_int_equal(sana_plan(&options, NULL, false, plan, NULL), 0);
		assert_int_equal(sana_model_open(&options, &model, NULL), 0);
		assert_int_equal(sana_stream_open(model, &stream_options, &stream, NULL), 0);
		sana_stream_statistics(stream, &statistics);
		print_message("planned %zu and %zu bytes\n", plan->model_bytes, plan->stream_bytes);
		assert_int_equal(plan->model_bytes, statistics.model_bytes);
		assert_int_equal(plan->stream_bytes, statistics.stream_bytes);
		assert_int_equal(plan->mapped_bytes, statistics.mapped_bytes);
		(void)sana_stream_close(stream);
		(void)sana_model_unref(model);
	}
	scratch_remove(&scratch);
	free(plan);
}

/* The public VAE's decoder is not causal: whole clips can be decoded with it, streams cannot run. */
static void test_a_decoder_that_is_not_causal(void **state)
{
	enum { SIDE = SMALL_MODEL_SIDE, LATENTS = 3, FRAMES = 5 };
	static const char causal[] = "\"decoder_causal\": true",
			  wish[] = "\"decoder_causal\":false";
	static float latents[LATENTS * 2 * 2 * 8];
	static uint8_t rgb[FRAMES * SIDE * SIDE * 3];
	struct sana_model_options options = { .without_text = true, .threads = 1 };
	struct sana_stream_options stream_options;
	struct sana_stream *stream;
	struct sana_model *model;
	struct sana_error error = { 0 };
	struct scratch scratch;
	size_t length;
	char *text, *at;

	(void)state;
	scratch_create(&scratch);
	small_model_write(&scratch);
	assert_int_equal(file_read(scratch_path(&scratch, "vae/config.json"), 1 << 16, "", &text,
				   &length, NULL),
			 0);
	at = strstr(text, causal);
	assert_non_null(at);
	memcpy(at, wish, sizeof(wish) - 1);
	scratch_write_text(&scratch, "vae/config.json", text);
	free(text);

	options.directory = scratch.path;
	if (sana_model_open(&options, &model, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	assert_int_equal(sana_decode_clip(model, latents, LATENTS, SIDE, SIDE, rgb, &error), 0);
	sana_stream_options_init(&stream_options);
	assert_int_equal(sana_stream_open(model, &stream_options, &stream, &error), -ENOTSUP);
	assert_string_equal(error.name, "stream.decoder");
	(void)sana_model_unref(model);
	scratch_remove(&scratch);
}

/* Heads of two lanes have no spatial rotations, whose tables bound other pictures. */
static void test_pictures_of_too_many_tokens(void **state)
{
	const struct model_config config = {
		.stream = { .chunk_latents = 3, .steps = 1 },
		.dit = { .depth = 1, .hidden_size = 2, .num_heads = 1, .head_dim = 2, .pairs_t = 1 },
	};
	struct editor_options options = { .height = 1 << 14,
					  .first_frames = 5,
					  .rebase_latents = 1 };
	struct editor *editor = calloc(1, sizeof(*editor));

	(void)state;
	assert_non_null(editor);
	options.width = INT32_MAX / 15 / options.height;
	assert_int_equal(editor_init(editor, &config, NULL, &options), 0);
	options.width++;
	assert_int_equal(editor_init(editor, &config, NULL, &options), -EINVAL);
	options.width = 1 << 14;
	assert_int_equal(editor_init(editor, &config, NULL, &options), -EINVAL);
	free(editor);
}

/* ------------------------------------------------------------------------------------ failures */

static int copy_fails(struct kernel_device *device, void *to, const void *from, size_t bytes,
		      struct kernel_queue *queue)
{
	(void)device;
	(void)to;
	(void)from;
	(void)bytes;
	(void)queue;
	return -EIO;
}

static int op_fails(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	(void)device;
	(void)params;
	(void)queue;
	return -EIO;
}

/* One frame into a stream whose table fails; what its first stage says. */
static struct sana_error failed_stage(struct sana_model *model, const struct kernel_backend *table)
{
	const struct kernel_backend *good = model->backend.table;
	struct sana_stream_options options;
	struct sana_stream *stream;
	struct sana_error error = { 0 };
	enum sana_stage stage;
	static uint8_t rgb[SMALL_MODEL_SIDE * SMALL_MODEL_SIDE * 3];
	const struct sana_picture picture = { rgb, (size_t)SMALL_MODEL_SIDE * 3, SMALL_MODEL_SIDE,
					      SMALL_MODEL_SIDE };
	struct sana_prompt *prompt = small_model_prompt(model, 0);
	uint64_t ticket;

	sana_stream_options_init(&options);
	assert_int_equal(sana_stream_open(model, &options, &stream, NULL), 0);
	assert_int_equal(sana_stream_set_prompt(stream, prompt, SANA_SWITCH_INVALID, &ticket, NULL),
			 0);
	assert_int_equal(sana_stream_push(stream, &picture, 1, NULL), 1);
	model->backend.table = table;
	assert_int_equal(sana_stream_step(stream, &stage, &error), -EIO);
	model->backend.table = good;
	print_message("%s\n", error.text);
	(void)sana_stream_close(stream);
	(void)sana_prompt_unref(prompt);
	return error;
}

/* The sentence names an op only where one failed. */
static void test_failures_name_what_failed(void **state)
{
	struct sana_model_options options = { .without_text = true, .threads = 1 };
	struct kernel_backend copies = kernel_backend_cpu, ops = kernel_backend_cpu;
	struct sana_model *model;
	struct sana_error error;
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	small_model_write(&scratch);
	options.directory = scratch.path;
	assert_int_equal(sana_model_open(&options, &model, NULL), 0);
	copies.copy = copy_fails;
	error = failed_stage(model, &copies);
	assert_non_null(strstr(error.text, "Stage encode failed: "));
	ops.run[KERNEL_OP_conv3d] = op_fails;
	error = failed_stage(model, &ops);
	assert_non_null(strstr(error.text, "Stage encode failed in op conv3d: "));
	(void)sana_model_unref(model);
	scratch_remove(&scratch);
}

/* A stream of a small model with a prompt set, and the one picture that it gets and gives. */
struct small_stream {
	struct scratch scratch;
	struct sana_model *model;
	struct sana_stream *stream;
	struct sana_prompt *prompt;
	uint64_t ticket;
	uint8_t rgb[SMALL_MODEL_SIDE * SMALL_MODEL_SIDE * 3];
	struct sana_picture picture;
};

static void small_stream_open(struct small_stream *s)
{
	struct sana_model_options options = { .without_text = true, .threads = 1 };
	struct sana_stream_options stream_options;

	*s = (struct small_stream){ 0 };
	s->picture = (struct sana_picture){ s->rgb, (size_t)SMALL_MODEL_SIDE * 3, SMALL_MODEL_SIDE,
					    SMALL_MODEL_SIDE };
	scratch_create(&s->scratch);
	small_model_write(&s->scratch);
	options.directory = s->scratch.path;
	assert_int_equal(sana_model_open(&options, &s->model, NULL), 0);
	sana_stream_options_init(&stream_options);
	assert_int_equal(sana_stream_open(s->model, &stream_options, &s->stream, NULL), 0);
	s->prompt = small_model_prompt(s->model, 0);
	assert_int_equal(sana_stream_set_prompt(s->stream, s->prompt, SANA_SWITCH_INVALID,
						&s->ticket, NULL),
			 0);
}

static void small_stream_close(struct small_stream *s)
{
	(void)sana_stream_close(s->stream);
	(void)sana_prompt_unref(s->prompt);
	(void)sana_model_unref(s->model);
	scratch_remove(&s->scratch);
}

/* A frame that does not reach the device: the push says so, and the stream goes on with the next. */
static void test_a_push_that_fails(void **state)
{
	struct kernel_backend copies = kernel_backend_cpu;
	struct sana_statistics statistics;
	struct sana_error error = { 0 };
	struct small_stream s;

	(void)state;
	small_stream_open(&s);
	copies.upload = copy_fails;
	s.model->backend.table = &copies;
	assert_int_equal(sana_stream_push(s.stream, &s.picture, 1, &error), -EIO);
	assert_string_equal(error.name, "backend.failed");
	s.model->backend.table = &kernel_backend_cpu;
	assert_int_equal(sana_stream_push(s.stream, &s.picture, 2, NULL), 1);
	sana_stream_statistics(s.stream, &statistics);
	assert_int_equal(statistics.failures, 1);
	assert_int_equal(statistics.frames_in, 1);
	small_stream_close(&s);
}

/* Pushes, and runs every stage that can, until a chunk's frames wait to be pulled. */
static void fill_output(struct small_stream *s, int64_t *time)
{
	enum sana_stage stage;

	while (!stream_output_next(s->stream)) {
		assert_int_equal(sana_stream_push(s->stream, &s->picture, ++*time, NULL), 1);
		while (sana_stream_step(s->stream, &stage, NULL) > 0)
			;
	}
}

/* The frame that announces a prompt is lost before it is pulled: the next one announces it. */
static void test_a_lost_announcement_is_made_again(void **state)
{
	struct kernel_backend copies = kernel_backend_cpu;
	struct sana_frame_info info;
	struct small_stream s;
	int64_t time = 0;

	(void)state;
	small_stream_open(&s);
	fill_output(&s, &time);
	copies.download = copy_fails;
	s.model->backend.table = &copies;
	assert_int_equal(sana_stream_pull(s.stream, &s.picture, &info, NULL), -EIO);
	s.model->backend.table = &kernel_backend_cpu;
	fill_output(&s, &time);
	assert_int_equal(sana_stream_pull(s.stream, &s.picture, &info, NULL), 1);
	assert_int_equal(info.ticket, s.ticket);
	assert_true(info.prompt_changed);
	assert_int_equal(sana_stream_pull(s.stream, &s.picture, &info, NULL), 1);
	assert_false(info.prompt_changed);
	small_stream_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_after_a_failure),
		cmocka_unit_test(test_plans_know_missing_ops),
		cmocka_unit_test(test_plans_are_what_is_taken),
		cmocka_unit_test(test_a_decoder_that_is_not_causal),
		cmocka_unit_test(test_pictures_of_too_many_tokens),
		cmocka_unit_test(test_failures_name_what_failed),
		cmocka_unit_test(test_a_push_that_fails),
		cmocka_unit_test(test_a_lost_announcement_is_made_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
