/*
 * A back end that measures its ops while a stream opens: it sees the products of a first chunk and of later
 * ones, with memory to write into; what it leaves there changes no picture; a failure of it is the stream's.
 */
#include "tests/common/stream_fixture.h"

#include <errno.h>

enum { CHUNKS = 3, SHAPES = 64 };

/* The table has no place for a context. */
static struct measured {
	struct kernel_backend table;
	int linears, temporals, others, rows[SHAPES], row_counts, ended;
	int answer;
	bool in_vain; /* it ran, and nothing came of it */
} measured;

static void rows_note(int rows)
{
	for (int i = 0; i < measured.row_counts; i++)
		if (measured.rows[i] == rows)
			return;
	if (measured.row_counts < SHAPES)
		measured.rows[measured.row_counts++] = rows;
}

/* NaN into everything that measuring may overwrite. */
static int tune(struct kernel_device *device, enum kernel_op op, const void *params,
		struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	if (op == KERNEL_OP_linear) {
		const struct kernel_linear *l = params;

		measured.linears++;
		rows_note(l->rows);
		memset((void *)(uintptr_t)l->x, 0xff,
		       sizeof(float) *
			       ((size_t)(l->rows - 1) * l->ldx + (size_t)l->part[0].weight->in));
		for (int i = 0; i < l->parts; i++)
			for (int n = 0; n < l->rows; n++)
				memset((float *)l->part[i].y + (size_t)n * l->part[i].ldy, 0xff,
				       sizeof(float) * (size_t)l->part[i].weight->out);
	} else if (op == KERNEL_OP_temporal_conv) {
		const struct kernel_temporal_conv *t = params;

		measured.temporals++;
		memset(t->x, 0xff,
		       sizeof(float) * (size_t)t->frames * (size_t)t->tokens_per_frame *
			       (size_t)t->channels);
	} else {
		measured.others++;
	}
	return measured.answer;
}

static void tuned(struct kernel_device *device, struct kernel_tuning *ret)
{
	(void)device;
	*ret = (struct kernel_tuning){ .measured = measured.in_vain ? 0 : measured.linears,
				       .known = 2,
				       .left = 3,
				       .library = 1,
				       .seconds = 0.5,
				       .text = "chosen",
				       .note = "not kept",
				       .lines = 1,
				       .line[0] = { .shape = "a of b",
						    .own = "own",
						    .library = "theirs",
						    .own_ms = 2,
						    .library_ms = 1,
						    .chosen = 2 } };
	measured.ended++;
}

static void wrap(const struct stream_fixture *fixture, int answer)
{
	memset(&measured, 0, sizeof(measured));
	measured.table = kernel_backend_cpu;
	measured.table.tune = tune;
	measured.table.tuned = tuned;
	measured.answer = answer;
	fixture->model->backend.table = &measured.table;
}

static size_t poison_count(const struct sana_stream *stream)
{
	const uint32_t *word = stream->block;
	size_t count = 0;

	for (size_t i = 0; i < stream->block_bytes / sizeof(*word); i++)
		count += word[i] == UINT32_MAX;
	return count;
}

static void leaves_nothing_behind(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *plain = recording_open(fixture, &options, fixture->prompt_a), *other;
	struct sana_tuning tuning;

	recording_feed_chunks(plain, CHUNKS);
	sana_stream_tuning(plain->stream, &tuning);
	assert_string_equal(tuning.text, "");
	wrap(fixture, 0);
	other = recording_open(fixture, &options, fixture->prompt_a);
	print_message("%d linear, %d temporal, %d other ops, %d numbers of rows\n",
		      measured.linears, measured.temporals, measured.others, measured.row_counts);
	assert_true(measured.linears > 0 && measured.temporals > 0);
	/* Of a first chunk, and of another one. */
	assert_int_equal(measured.row_counts, 2);
	assert_int_equal(measured.ended, 1);
	assert_int_equal(poison_count(other->stream), 0);
	sana_stream_tuning(other->stream, &tuning);
	assert_int_equal(tuning.measured, measured.linears);
	assert_int_equal(tuning.known, 2);
	assert_int_equal(tuning.left, 3);
	assert_int_equal(tuning.library, 1);
	assert_string_equal(tuning.text, "chosen");
	assert_string_equal(tuning.note, "not kept");
	assert_int_equal(tuning.lines, 1);
	assert_string_equal(tuning.line[0].library, "theirs");
	assert_int_equal(tuning.line[0].chosen, 2);
	recording_feed_chunks(other, CHUNKS);
	recording_assert_same(plain, 0, other, 0, CHUNKS);
	recording_close(other);
	fixture->model->backend.table = &kernel_backend_cpu;
	recording_close(plain);
}

/* Kernels were run and gave no times: what they wrote is there all the same. */
static void leaves_nothing_behind_in_vain(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r;

	wrap(fixture, 0);
	measured.in_vain = true;
	r = recording_open(fixture, &options, fixture->prompt_a);
	assert_true(measured.linears > 0);
	assert_int_equal(poison_count(r->stream), 0);
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
}

static void failure_is_the_streams(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct sana_stream *stream;
	struct sana_error error = { 0 };

	wrap(fixture, -EFAULT);
	assert_int_equal(sana_stream_open(fixture->model, &options, &stream, &error), -EFAULT);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "backend.kernel");
	assert_int_equal(measured.linears + measured.temporals + measured.others, 1);
	assert_int_equal(measured.ended, 1);
	fixture->model->backend.table = &kernel_backend_cpu;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_nothing_behind),
		cmocka_unit_test(leaves_nothing_behind_in_vain),
		cmocka_unit_test(failure_is_the_streams),
	};

	return cmocka_run_group_tests(tests, stream_fixture_setup, stream_fixture_teardown);
}
