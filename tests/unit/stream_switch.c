/* A new prompt in a running stream: keep, recache, restart, replacement, reset. */
#include "tests/common/editor_fixture.h"

#include "tests/common/expected.h"

/* Re-basing turns keys by rounded rotations; everything else of the two runs is the same. */
#define TOLERANCE_REBASE 1e-5

/* The same cache pass over the same inputs once more. */
#define TOLERANCE_AGAIN 1e-6

/*
 * What the prompt of one cache pass does to the chunks after it is little, 2e-4 of the norm, but far
 * from the rounding (below 1e-6) by which it could be missed.
 */
#define DIFFERENT 2e-5

enum { BEFORE = STREAM_FIXTURE_SLOW ? 2 : 3, AFTER = STREAM_FIXTURE_SLOW ? 2 : 3 };

/* The first recorded frame of a chunk; asserts that it alone announces `ticket`. */
static void check_announced(const struct recording *r, uint64_t chunk, uint64_t ticket)
{
	int announced = 0;

	for (int i = 0; i < r->frames; i++) {
		const struct sana_frame_info *info = &r->info[i];

		assert_int_equal(info->ticket >= ticket, info->chunk >= chunk);
		if (!info->prompt_changed || info->ticket != ticket)
			continue;
		assert_int_equal(info->chunk, chunk);
		assert_int_equal(info->index_in_chunk, 0);
		announced++;
	}
	assert_int_equal(announced, 1);
}

/* A stream that begins with the source frame at which another one stands. */
static struct recording *fresh_open(const struct stream_fixture *fixture,
				    const struct sana_stream_options *options,
				    struct sana_prompt *prompt, uint64_t from)
{
	struct recording *r = recording_open(fixture, options, prompt);

	r->pushed = from;
	return r;
}

/* ------------------------------------------------------------------------------------ restart */

/* `waiting`: the chunk after the first ones has begun already, so the restart waits for the next. */
static void check_restart(const struct stream_fixture *fixture, int first_latents, bool waiting)
{
	struct sana_stream_options options = stream_fixture_small();
	const int chunk = BEFORE + waiting;
	struct recording *r, *fresh;

	options.first_chunk_latents = first_latents;
	options.seed = 5;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, BEFORE);
	if (waiting)
		recording_feed(r, 1);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RESTART),
			 2);
	if (waiting)
		recording_feed(r, FIXTURE_CHUNK_FRAMES - 1);
	fresh = fresh_open(fixture, &options, fixture->prompt_b, r->pushed);
	recording_feed_chunks(fresh, AFTER);
	recording_feed(r, fresh->frames);
	recording_finish(r);

	print_message("first chunk of %d latents, restart at chunk %d: ", first_latents, chunk);
	recording_assert_same(r, chunk, fresh, 0, AFTER);
	check_announced(r, (uint64_t)chunk, 2);
	assert_int_equal(r->chunks, chunk + AFTER);
	assert_int_equal(r->frames, r->pushed);
	assert_int_equal(stream_fixture_statistics(r->stream).resets, 1);
	assert_int_equal(stream_fixture_statistics(r->stream).prompts, 2);
	recording_close(fresh);
	recording_close(r);
}

static void test_restart_equals_a_fresh_stream(void **state)
{
	check_restart(*state, 5, false);
	check_restart(*state, 3, false);
}

static void test_restart_waits_for_a_whole_chunk(void **state)
{
	check_restart(*state, 4, true);
}

static void test_reset_equals_a_fresh_stream(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a), *fresh;

	recording_feed_chunks(r, BEFORE);
	sana_stream_request_reset(r->stream);
	fresh = fresh_open(fixture, &options, fixture->prompt_a, r->pushed);
	recording_feed_chunks(fresh, AFTER);
	recording_feed(r, fresh->frames);
	recording_assert_same(r, BEFORE, fresh, 0, AFTER);
	check_announced(r, 0, 1);
	assert_int_equal(stream_fixture_statistics(r->stream).resets, 1);
	assert_int_equal(stream_fixture_statistics(r->stream).prompts, 1);
	recording_close(fresh);
	recording_close(r);
}

/*
 * A source that changed in the middle of a chunk: what was pushed of it is dropped, the next frame begins
 * anew. `editing`: the chunk before is being edited meanwhile, and comes out with its own tags.
 */
static void check_discard(const struct stream_fixture *fixture, bool editing)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a), *fresh;
	const int partial = editing ? 1 : 3;
	enum sana_stage stage = SANA_STAGE_NONE;
	int before;

	recording_feed_chunks(r, BEFORE);
	if (editing) {
		recording_feed(r, FIXTURE_CHUNK_FRAMES - 1);
		recording_push(r);
		while (stage != SANA_STAGE_DENOISE)
			assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	}
	if (editing)
		recording_push(r);
	else
		recording_feed(r, partial);
	sana_stream_discard(r->stream);
	recording_settle(r);
	before = r->frames;
	assert_int_equal(before + partial, r->pushed);
	for (int i = 0; i < before; i++)
		assert_int_equal(r->info[i].frame, i);
	fresh = fresh_open(fixture, &options, fixture->prompt_a, r->pushed);
	recording_feed_chunks(fresh, AFTER);
	recording_feed(r, fresh->frames);
	print_message("discarded %d frames%s: ", partial, editing ? ", a chunk being edited" : "");
	recording_assert_same(r, BEFORE + editing, fresh, 0, AFTER);
	assert_int_equal(r->info[before].frame, before + partial);
	assert_int_equal(stream_fixture_statistics(r->stream).frames_dropped, partial);
	assert_int_equal(stream_fixture_statistics(r->stream).resets, 1);
	recording_close(fresh);
	recording_close(r);
}

static void test_discard_equals_a_fresh_stream(void **state)
{
	check_discard(*state, false);
	check_discard(*state, true);
}

/* The same noise of the caller's serves the new history from its start. */
static void test_restart_takes_the_noise_from_its_start(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	const int latents = 5 + 3;
	const size_t count = FIXTURE_CHANNELS * 8 * 3 * 4;
	_cleanup_(freep) float *noise = malloc(count * sizeof(*noise));
	struct recording *r, *fresh;

	assert_non_null(noise);
	for (size_t i = 0; i < count; i++)
		noise[i] = (float)(i * 2654435761u % 2000) / 577.0f - 1.732f;
	options.noise = noise;
	options.noise_latents = latents;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, 2);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RESTART);
	fresh = fresh_open(fixture, &options, fixture->prompt_b, r->pushed);
	recording_feed_chunks(fresh, 2);
	recording_feed(r, fresh->frames);
	recording_assert_same(r, 2, fresh, 0, 2);
	recording_close(fresh);
	recording_close(r);
}

/* ------------------------------------------------------------------------------ keep, recache */

/* Pushes what completes the next chunk and stops right before the stage that takes the prompt. */
static void stop_before_prompt(struct recording *r)
{
	enum sana_stage stage;

	recording_feed(r, FIXTURE_CHUNK_FRAMES - 1);
	recording_push(r);
	assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	assert_int_equal(stage, SANA_STAGE_ENCODE);
}

static void run_prompt_stage(struct recording *r)
{
	enum sana_stage stage;

	assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	assert_int_equal(stage, SANA_STAGE_PROMPT);
}

/* The carried state right before and right after the prompt stage of chunk `chunk`. */
static double state_change(const struct stream_fixture *fixture, struct sana_prompt *prompt,
			   enum sana_prompt_switch mode, int chunk)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	_cleanup_(freep) float *before = NULL, *after = NULL;
	size_t floats_before, floats_after;
	double change;

	recording_feed_chunks(r, chunk);
	(void)stream_fixture_prompt(r->stream, prompt, mode);
	stop_before_prompt(r);
	before = cache_copy(&r->stream->editor.cache, &floats_before);
	run_prompt_stage(r);
	after = cache_copy(&r->stream->editor.cache, &floats_after);
	assert_int_equal(floats_before, floats_after);
	assert_int_equal(stream_fixture_statistics(r->stream).recaches,
			 mode == SANA_SWITCH_RECACHE);
	change = expected_relative_l2(after, before, floats_before);
	print_message("%s at chunk %d: %zu carried floats change by %.2e\n",
		      sana_prompt_switch_name(mode), chunk, floats_before, change);
	recording_close(r);
	return change;
}

static void test_keep_keeps_the_carried_state(void **state)
{
	const struct stream_fixture *fixture = *state;

	assert_true(state_change(fixture, fixture->prompt_b, SANA_SWITCH_KEEP, 1) == 0);
	assert_true(state_change(fixture, fixture->prompt_b, SANA_SWITCH_KEEP, 3) == 0);
}

static void test_recache_with_the_same_prompt_changes_nothing(void **state)
{
	const struct stream_fixture *fixture = *state;

	for (int chunk = 1; chunk <= 3; chunk++)
		assert_true(state_change(fixture, fixture->prompt_a, SANA_SWITCH_RECACHE, chunk) <
			    TOLERANCE_AGAIN);
	assert_true(state_change(fixture, fixture->prompt_b, SANA_SWITCH_RECACHE, 2) > DIFFERENT);
}

/*
 * The same history by another road: the chunk before the switch is edited under the old prompt, but
 * its cache pass, the only one it gets, already runs under the new one.
 */
static void check_recache(const struct stream_fixture *fixture, int chunk)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct editor_fixture *other = editor_fixture_open(fixture, &options);
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *kept = recording_open(fixture, &options, fixture->prompt_a);

	recording_feed_chunks(r, chunk);
	recording_feed_chunks(kept, chunk);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE),
			 2);
	assert_int_equal(stream_fixture_prompt(kept->stream, fixture->prompt_b, SANA_SWITCH_KEEP),
			 2);
	recording_feed(r, 2 * FIXTURE_CHUNK_FRAMES);
	recording_feed(kept, 2 * FIXTURE_CHUNK_FRAMES);
	assert_int_equal(r->chunks, chunk + 2);
	assert_int_equal(stream_fixture_statistics(r->stream).recaches, 1);

	editor_fixture_caption(other, fixture->prompt_a);
	for (int i = 0; i < r->chunks; i++) {
		editor_fixture_follow(other, r, i);
		editor_fixture_assert_same(other, r, i);
		if (i == chunk - 1)
			editor_fixture_caption(other, fixture->prompt_b);
		assert_int_equal(editor_save(&other->editor, &other->op), 1);
	}
	print_message("recache at chunk %d: the same bits; from keep it differs by %.2e\n", chunk,
		      recording_chunk_distance(r, chunk, kept, chunk, 2));
	assert_true(recording_chunk_distance(r, chunk, kept, chunk, 2) > DIFFERENT);
	check_announced(r, (uint64_t)chunk, 2);
	check_announced(kept, (uint64_t)chunk, 2);
	recording_close(kept);
	recording_close(r);
	editor_fixture_close(other);
}

/* Chunk 0 is the sink: it is written again. */
static void test_recache_of_the_sink(void **state)
{
	check_recache(*state, 1);
}

static void test_recache_of_later_chunks(void **state)
{
	check_recache(*state, 2);
	check_recache(*state, 3);
}

/* A prompt at the first chunk has nothing to run again. */
static void test_recache_without_history(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, NULL);
	struct recording *kept = recording_open(fixture, &options, NULL);

	(void)stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_RECACHE);
	(void)stream_fixture_prompt(kept->stream, fixture->prompt_a, SANA_SWITCH_KEEP);
	recording_feed_chunks(r, 1);
	recording_feed_chunks(kept, 1);
	recording_assert_same(r, 0, kept, 0, 1);
	assert_int_equal(stream_fixture_statistics(r->stream).recaches, 0);
	recording_close(kept);
	recording_close(r);
}

/* Positions moved back at every chunk, so each recache comes right after (and before) such a move. */
static void test_recache_around_a_rebase(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options plain = stream_fixture_small(), often = plain;

	often.rebase_latents = 1;
	for (int chunk = 1; chunk <= 3; chunk++) {
		struct recording *a = recording_open(fixture, &plain, fixture->prompt_a);
		struct recording *b = recording_open(fixture, &often, fixture->prompt_a);
		double distance;

		recording_feed_chunks(a, chunk);
		recording_feed_chunks(b, chunk);
		(void)stream_fixture_prompt(a->stream, fixture->prompt_b, SANA_SWITCH_RECACHE);
		(void)stream_fixture_prompt(b->stream, fixture->prompt_b, SANA_SWITCH_RECACHE);
		recording_feed(a, 2 * FIXTURE_CHUNK_FRAMES);
		recording_feed(b, 2 * FIXTURE_CHUNK_FRAMES);
		distance = recording_chunk_distance(b, 0, a, 0, chunk + 2);
		print_message("recache at chunk %d, a re-base at every chunk: %.2e\n", chunk,
			      distance);
		assert_true(distance < TOLERANCE_REBASE);
		assert_int_equal(stream_fixture_statistics(a->stream).rebases, 0);
		assert_int_equal(stream_fixture_statistics(b->stream).rebases, chunk + 1);
		assert_int_equal(stream_fixture_statistics(b->stream).recaches, 1);
		recording_close(b);
		recording_close(a);
	}
}

/* -------------------------------------------------------------------------------- replacement */

/* A prompt may still join the chunk whose frames come in: it acts when editing begins. */
static void test_keep_joins_the_chunk_being_filled(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);

	recording_feed_chunks(r, 1);
	recording_feed(r, FIXTURE_CHUNK_FRAMES - 1);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_KEEP), 2);
	recording_feed(r, 1);
	assert_int_equal(r->chunks, 2);
	check_announced(r, 1, 2);
	recording_close(r);
}

static void test_a_second_prompt_replaces_the_first(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_b);
	struct recording *once = recording_open(fixture, &options, fixture->prompt_b);

	recording_feed_chunks(r, 1);
	recording_feed_chunks(once, 1);
	/* A restart that has to wait is replaced by a prompt that need not. */
	recording_feed(r, 2);
	recording_feed(once, 2);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RESTART),
			 2);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE),
			 3);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_KEEP), 4);
	(void)stream_fixture_prompt(once->stream, fixture->prompt_a, SANA_SWITCH_KEEP);
	recording_feed(r, 2 * FIXTURE_CHUNK_FRAMES - 2);
	recording_feed(once, 2 * FIXTURE_CHUNK_FRAMES - 2);
	recording_assert_same(r, 1, once, 1, 2);
	check_announced(r, 1, 4);
	assert_int_equal(stream_fixture_statistics(r->stream).prompts, 2);
	assert_int_equal(stream_fixture_statistics(r->stream).resets, 0);
	assert_int_equal(stream_fixture_statistics(r->stream).recaches, 0);
	recording_close(once);
	recording_close(r);
}

/* A restart taken by a chunk stays one, also when its prompt is replaced before it acts. */
static void test_a_restart_keeps_its_place(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a), *fresh;

	recording_feed_chunks(r, 2);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_a, SANA_SWITCH_RESTART);
	fresh = fresh_open(fixture, &options, fixture->prompt_b, r->pushed);
	recording_feed(r, 1);
	assert_int_equal(stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE),
			 3);
	recording_feed_chunks(fresh, 2);
	recording_feed(r, fresh->frames - 1);
	recording_assert_same(r, 2, fresh, 0, 2);
	check_announced(r, 2, 3);
	recording_close(fresh);
	recording_close(r);
}

/* Between a reset that waits and its chunk, a prompt acts at once; the reset still comes. */
static void test_reset_and_prompt_together(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a), *fresh;

	recording_feed_chunks(r, 1);
	recording_feed(r, 1);
	sana_stream_request_reset(r->stream);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_KEEP);
	recording_feed(r, FIXTURE_CHUNK_FRAMES - 1);
	fresh = fresh_open(fixture, &options, fixture->prompt_b, r->pushed);
	recording_feed_chunks(fresh, 1);
	recording_feed(r, fresh->frames);
	check_announced(r, 1, 2);
	recording_assert_same(r, 2, fresh, 0, 1);
	assert_int_equal(stream_fixture_statistics(r->stream).resets, 1);
	recording_close(fresh);
	recording_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart_equals_a_fresh_stream),
		cmocka_unit_test(test_restart_waits_for_a_whole_chunk),
		cmocka_unit_test(test_reset_equals_a_fresh_stream),
		cmocka_unit_test(test_discard_equals_a_fresh_stream),
		cmocka_unit_test(test_restart_takes_the_noise_from_its_start),
		cmocka_unit_test(test_keep_keeps_the_carried_state),
		cmocka_unit_test(test_recache_with_the_same_prompt_changes_nothing),
		cmocka_unit_test(test_recache_of_the_sink),
		cmocka_unit_test(test_recache_of_later_chunks),
		cmocka_unit_test(test_recache_without_history),
		cmocka_unit_test(test_recache_around_a_rebase),
		cmocka_unit_test(test_keep_joins_the_chunk_being_filled),
		cmocka_unit_test(test_a_second_prompt_replaces_the_first),
		cmocka_unit_test(test_a_restart_keeps_its_place),
		cmocka_unit_test(test_reset_and_prompt_together),
	};

	return cmocka_run_group_tests_name("stream switch", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
