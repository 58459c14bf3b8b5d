/* Passes as graphs: streams whose passes are recorded give the bits of streams whose passes are run. */
#include "tests/common/recorder.h"
#include "tests/common/stream_fixture.h"

/* Long enough for graphs to be used again, in slow builds too. */
enum { CHUNKS = 9, AFTER = 6 };

/* A run with everything that changes what a pass reads: another prompt, its redone chunk, re-basing. */
static struct recording *stream_run(const struct stream_fixture *fixture,
				    const struct kernel_backend *table)
{
	struct sana_stream_options options = stream_fixture_small();
	struct recording *r;

	fixture->model->backend.table = table;
	options.rebase_latents = 8;
	options.seed = 3;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, CHUNKS);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE);
	recording_feed(r, AFTER * FIXTURE_CHUNK_FRAMES);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_RESTART);
	recording_feed(r, AFTER * FIXTURE_CHUNK_FRAMES);
	recording_finish(r);
	return r;
}

static void test_same_bits(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct recording *plain = stream_run(fixture, &kernel_backend_cpu);
	struct recorder *recorder = recorder_start();
	struct recording *recorded = stream_run(fixture, &recorder->table);

	print_message("%d chunks, %d passes launched from %d graphs, %d passes run as they are\n",
		      recorded->chunks, (int)recorder->launches, (int)recorder->recorded,
		      (int)recorded->stream->editor.graphs.plain);
	assert_int_equal(plain->chunks, recorded->chunks);
	recording_assert_same(plain, 0, recorded, 0, plain->chunks);
	assert_true(recorder->launches > recorder->recorded);
	recording_close(recorded);
	assert_int_equal(recorder->graphs, 0);
	fixture->model->backend.table = &kernel_backend_cpu;
	recording_close(plain);
}

/* From some chunk on every pass is one launch and nothing new is recorded, re-basing or not. */
static void test_steady_state(void **state)
{
	enum { FIRST = 6, MORE = 5 };
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recorder *recorder = recorder_start();
	struct recording *r;
	uint64_t recorded, plain, launches, rebases;

	options.rebase_latents = 7;
	fixture->model->backend.table = &recorder->table;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, FIRST);
	recorded = recorder->recorded;
	plain = r->stream->editor.graphs.plain;
	launches = recorder->launches;
	rebases = stream_fixture_statistics(r->stream).rebases;
	recording_feed(r, MORE * FIXTURE_CHUNK_FRAMES);
	rebases = stream_fixture_statistics(r->stream).rebases - rebases;
	print_message("after %d chunks %d graphs; in %d more %d launches, %d re-basings\n", FIRST,
		      (int)recorded, MORE, (int)(recorder->launches - launches), (int)rebases);
	assert_int_equal(recorder->recorded, recorded);
	assert_int_equal(r->stream->editor.graphs.plain, plain);
	assert_int_equal(recorder->launches - launches,
			 MORE * (fixture->model->config.stream.steps + 1));
	assert_true(rebases >= 1);
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
}

/* An op that cannot be recorded is run as it is, ever after. */
static void test_refused(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recorder *recorder = recorder_start();
	struct recording *plain, *refused;

	plain = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(plain, 5);
	recorder->refused = KERNEL_OP_gdn;
	fixture->model->backend.table = &recorder->table;
	refused = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(refused, 5);
	recording_assert_same(plain, 0, refused, 0, 5);
	assert_int_equal(recorder->launches, 0);
	assert_int_equal(stream_fixture_statistics(refused->stream).failures, 0);
	recording_close(refused);
	assert_int_equal(recorder->graphs, 0);
	fixture->model->backend.table = &kernel_backend_cpu;
	recording_close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_bits),
		cmocka_unit_test(test_steady_state),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("pass_graph", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
