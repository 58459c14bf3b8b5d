/* Stages that overlap give the frames of stages that run one by one, whatever the device does when. */
#include "tests/common/recorder.h"
#include "tests/common/stream_fixture.h"

#include <errno.h>

enum { BEGIN = 5, AFTER = 4, SEEDS = STREAM_FIXTURE_SLOW ? 2 : 6 };

/* One frame in, as a caller that never waits does it: a step only where there is no room. */
static void push(struct recording *r)
{
	for (;;) {
		const struct sana_picture picture =
			stream_fixture_picture(r->fixture, r->pushed, r->width, r->height);
		enum sana_stage stage;
		int result =
			sana_stream_push(r->stream, &picture, stream_fixture_time(r->pushed), NULL);

		assert_true(result >= 0);
		r->pushed += (uint64_t)result;
		if (result > 0)
			return;
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
		recording_pull(r);
	}
}

static void feed(struct recording *r, int frames, bool settle)
{
	for (int i = 0; i < frames; i++) {
		push(r);
		if (settle)
			recording_settle(r);
	}
}

/*
 * Everything that changes what a stage reads: prompts in all three ways, re-basing, a first chunk of its own
 * size, an end in the middle of a latent. Prompts are set where nothing is on its way, so that they meet the
 * same chunk in every run.
 */
static struct recording *stream_run(const struct stream_fixture *fixture,
				    const struct kernel_backend *table, int decode_latents,
				    bool settle)
{
	struct sana_stream_options options = stream_fixture_small();
	const int chunk = FIXTURE_CHUNK_FRAMES;
	struct recording *r;

	fixture->model->backend.table = table;
	options.rebase_latents = 8;
	options.decode_latents = decode_latents;
	options.seed = 5;
	r = recording_open(fixture, &options, fixture->prompt_a);
	feed(r, stream_frames(r->stream, r->stream->options.first_chunk_latents, true), settle);
	feed(r, BEGIN * chunk, settle);
	recording_settle(r);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE);
	feed(r, AFTER * chunk, settle);
	recording_settle(r);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_KEEP);
	feed(r, AFTER * chunk, settle);
	recording_settle(r);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RESTART);
	feed(r, AFTER * chunk + 3, settle);
	recording_finish(r);
	return r;
}

static void assert_same(const struct recording *a, const struct recording *b)
{
	assert_int_equal(a->frames, b->frames);
	assert_int_equal(a->chunks, b->chunks);
	for (int i = 0; i < a->frames; i++) {
		assert_memory_equal(&a->info[i], &b->info[i], sizeof(a->info[i]));
		if (memcmp(recording_frame(a, i), recording_frame(b, i), a->picture_bytes) != 0)
			fail_msg("frame %d differs", i);
	}
}

/* The last frames of a are those of b. */
static void assert_ends_with(const struct recording *a, const struct recording *b)
{
	assert_true(b->frames > 0 && b->frames <= a->frames);
	for (int i = 0; i < b->frames; i++)
		assert_memory_equal(recording_frame(a, a->frames - b->frames + i),
				    recording_frame(b, i), a->picture_bytes);
}

static void test_same_frames(void **state)
{
	const struct stream_fixture *fixture = *state;

	for (int latents = 1; latents <= 3; latents += 2) {
		struct recording *plain = stream_run(fixture, &kernel_backend_cpu, latents, true);

		for (uint32_t seed = 0; seed < SEEDS; seed++) {
			struct recorder *late = recorder_start_late(seed);
			struct recording *r =
				stream_run(fixture, &late->table, latents, seed % 3 == 2);

			print_message("%d latents at once, seed %d: %d frames, %d waits, up to %d "
				      "steps undone\n",
				      latents, (int)seed, r->frames, (int)late->waits,
				      late->most_waiting);
			assert_same(plain, r);
			assert_int_equal(stream_fixture_statistics(r->stream).failures, 0);
			recording_close(r);
			assert_int_equal(late->graphs, 0);
		}
		fixture->model->backend.table = &kernel_backend_cpu;
		recording_close(plain);
	}
}

/* The next stages are enqueued while one runs: what the caller does in between costs the device nothing. */
static void test_runs_ahead(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recorder *late = recorder_start_late(1);
	uint64_t waits, chunks;
	struct recording *r;

	fixture->model->backend.table = &late->table;
	r = recording_open(fixture, &options, fixture->prompt_a);
	feed(r, 8 * FIXTURE_CHUNK_FRAMES, false);
	waits = late->waits;
	chunks = stream_fixture_statistics(r->stream).chunks;
	feed(r, 8 * FIXTURE_CHUNK_FRAMES, false);
	chunks = stream_fixture_statistics(r->stream).chunks - chunks;
	/* At most one a stage: three latents, four steps, decoding, the cache pass. */
	print_message("%d waits in %d chunks\n", (int)(late->waits - waits), (int)chunks);
	assert_true(chunks >= 6);
	assert_true(late->waits - waits <= 9 * (chunks + 1));
	assert_true(late->most_waiting > 100);
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
}

/* Switched off and on where stages are on their way. */
static void test_switched_off_and_on(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *plain, *r;
	struct recorder *late;

	plain = recording_open(fixture, &options, fixture->prompt_a);
	assert_false(sana_stream_set_overlap(plain->stream, true));
	recording_feed_chunks(plain, 9);
	recording_finish(plain);
	late = recorder_start_late(7);
	fixture->model->backend.table = &late->table;
	r = recording_open(fixture, &options, fixture->prompt_a);
	for (int i = 0; r->pushed < plain->pushed; i++) {
		assert_true(sana_stream_set_overlap(r->stream, i % 2));
		for (int k = 0; k < 7 && r->pushed < plain->pushed; k++)
			push(r);
	}
	recording_finish(r);
	assert_same(plain, r);
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
	recording_close(plain);
}

/* 0 says that there is nothing new to pull: also of the step that finds what was on its way before. */
static void test_switched_off_at_the_end(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recorder *late = recorder_start_late(2);
	enum sana_stage stage = SANA_STAGE_NONE;
	struct recording *r;
	int frames;

	fixture->model->backend.table = &late->table;
	options.decode_latents = MODEL_MAX_CHUNK_LATENTS;
	r = recording_open(fixture, &options, fixture->prompt_a);
	feed(r, stream_frames(r->stream, r->stream->options.first_chunk_latents, true), false);
	assert_int_equal(sana_stream_finish(r->stream, NULL), 0);
	while (stage != SANA_STAGE_DECODE)
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	recording_pull(r);
	frames = r->frames;
	(void)sana_stream_set_overlap(r->stream, false);
	assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	assert_int_equal(stage, SANA_STAGE_NONE);
	recording_pull(r);
	assert_true(r->frames > frames);
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
}

/* Ops that are timed are waited for meanwhile; afterwards it is as the caller wanted it. */
static void test_timed_in_between(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();

	for (int wanted = 0; wanted <= 1; wanted++) {
		struct recorder *late = recorder_start_late(3);
		struct recording *r;

		fixture->model->backend.table = &late->table;
		r = recording_open(fixture, &options, fixture->prompt_a);
		assert_true(sana_stream_set_overlap(r->stream, wanted));
		assert_int_equal(sana_stream_profile_start(r->stream, NULL), 0);
		feed(r, 3 * FIXTURE_CHUNK_FRAMES, false);
		late->most_waiting = 0;
		feed(r, 3 * FIXTURE_CHUNK_FRAMES, false);
		assert_true(late->most_waiting < 100);
		(void)sana_stream_profile(r->stream, NULL, 0);
		feed(r, 3 * FIXTURE_CHUNK_FRAMES, false);
		print_message("wanted %d: up to %d steps undone\n", wanted, late->most_waiting);
		assert_int_equal(late->most_waiting > 100, wanted);
		recording_close(r);
		fixture->model->backend.table = &kernel_backend_cpu;
	}
}

/* Fails on the device some time after it was enqueued; every frame is accounted for and the stream goes on. */
static void check_failure(const struct stream_fixture *fixture, enum kernel_op op, int calls)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct recorder *late = recorder_start_late((uint32_t)calls);
	struct sana_error error = { 0 };
	struct sana_statistics s;
	struct recording *r, *fresh;
	enum sana_stage stage;
	uint64_t begin;
	int result = 0;

	fixture->model->backend.table = &late->table;
	r = recording_open(fixture, &options, fixture->prompt_a);
	feed(r, 3 * FIXTURE_CHUNK_FRAMES, false);
	late->failed = op;
	late->calls_left = calls;
	while (result >= 0) {
		const struct sana_picture picture =
			stream_fixture_picture(fixture, r->pushed, r->width, r->height);

		assert_true(r->pushed < 200);
		result = sana_stream_push(r->stream, &picture, stream_fixture_time(r->pushed),
					  &error);
		r->pushed += result > 0;
		if (result == 0)
			result = sana_stream_step(r->stream, &stage, &error);
		if (result >= 0)
			recording_pull(r);
	}
	late->failed = KERNEL_OP_COUNT;
	print_message("%s\n", error.text);
	assert_int_equal(result, -EIO);
	assert_string_equal(error.name, "backend.failed");
	s = stream_fixture_statistics(r->stream);
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);
	begin = r->pushed;
	recording_feed_chunks(r, 3);
	recording_finish(r);
	s = stream_fixture_statistics(r->stream);
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);

	fixture->model->backend.table = &kernel_backend_cpu;
	fresh = recording_open(fixture, &options, fixture->prompt_a);
	fresh->pushed = begin;
	recording_feed_chunks(fresh, 3);
	recording_finish(fresh);
	assert_ends_with(r, fresh);
	recording_close(fresh);
	fixture->model->backend.table = &late->table;
	recording_close(r);
	fixture->model->backend.table = &kernel_backend_cpu;
}

static void test_failures(void **state)
{
	check_failure(*state, KERNEL_OP_patchify, 1);
	check_failure(*state, KERNEL_OP_conv3d, 17);
	check_failure(*state, KERNEL_OP_euler_step, 2);
	check_failure(*state, KERNEL_OP_unpatchify, 0);
	check_failure(*state, KERNEL_OP_health, 0);
	check_failure(*state, KERNEL_OP_health, 3);
}

/* What is not edited yet is dropped while its pictures are still being copied; what is edited comes out. */
static void test_discarded_on_the_way(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();

	for (int after = 1; after <= 2 * FIXTURE_CHUNK_FRAMES; after++) {
		struct recorder *late = recorder_start_late((uint32_t)after);
		struct recording *r, *fresh;
		struct sana_statistics s;

		fixture->model->backend.table = &late->table;
		r = recording_open(fixture, &options, fixture->prompt_a);
		feed(r, 2 * FIXTURE_CHUNK_FRAMES + after, false);
		sana_stream_discard(r->stream);
		feed(r, 3 * FIXTURE_CHUNK_FRAMES, false);
		recording_finish(r);
		s = stream_fixture_statistics(r->stream);
		assert_int_equal(s.failures, 0);
		assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);

		fixture->model->backend.table = &kernel_backend_cpu;
		fresh = recording_open(fixture, &options, fixture->prompt_a);
		fresh->pushed = (uint64_t)(2 * FIXTURE_CHUNK_FRAMES + after);
		recording_feed(fresh, 3 * FIXTURE_CHUNK_FRAMES);
		recording_finish(fresh);
		assert_int_equal(fresh->frames, 3 * FIXTURE_CHUNK_FRAMES);
		assert_ends_with(r, fresh);
		recording_close(fresh);
		fixture->model->backend.table = &late->table;
		recording_close(r);
		fixture->model->backend.table = &kernel_backend_cpu;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_frames),
		cmocka_unit_test(test_runs_ahead),
		cmocka_unit_test(test_switched_off_and_on),
		cmocka_unit_test(test_switched_off_at_the_end),
		cmocka_unit_test(test_timed_in_between),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_discarded_on_the_way),
	};

	return cmocka_run_group_tests_name("stream_overlap", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
