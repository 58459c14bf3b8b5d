/* Values that are not finite or absurd, and a back end that fails: what a stream loses by them. */
#include "tests/common/editor_fixture.h"

#include <errno.h>
#include <math.h>

#include "tests/common/expected.h"

/* Re-basing turns keys by rounded rotations. */
#define TOLERANCE_REBASE 1e-5

static const float bad_values[] = { NAN, INFINITY, -INFINITY, 1e30f, -2e6f };

/* What a cache pass leaves for the next chunk. */
enum part { PART_STATE, PART_NORMALISER, PART_LEFT, PART_K, PART_V, PART_COUNT };

/* Spoils the results with the numbers `from` … `until` − 1, counted from 0 by kind. */
struct poison {
	bool latent; /* the latents of a chunk; else what its cache pass wrote */
	int from, until;
	float value;
	enum part part;
	bool redo; /* count only passes that run again */
	int seen, done;
};

static float *part_of(const struct cache *cache, enum part part, bool redo)
{
	struct cache_view view;

	for (int i = cache->config->depth - 1; i >= 0; i--) {
		float *at = NULL;

		if (cache->config->softmax[i] != (part == PART_K || part == PART_V))
			continue;
		cache_view(cache, i, true, redo, &view);
		switch (part) {
		case PART_STATE:
			at = view.state_out;
			break;
		case PART_NORMALISER:
			at = view.normaliser_out;
			break;
		case PART_LEFT:
			at = view.left_out;
			break;
		case PART_K:
			at = view.k_out;
			break;
		case PART_V:
			at = view.v_out;
			break;
		case PART_COUNT:
			break;
		}
		return at;
	}
	return NULL;
}

static void poison_probe(void *context, struct editor *editor, bool latent)
{
	struct poison *p = context;
	float *at;

	if (latent != p->latent)
		return;
	if (p->seen++ < p->from || p->seen > p->until)
		return;
	at = latent ? editor_latent(editor) : part_of(&editor->cache, p->part, p->redo);
	assert_non_null(at);
	/* Not the first element: the whole tensor is looked at. */
	at[100] = p->value;
	p->done++;
}

static void poison_set(struct recording *r, struct poison *poison)
{
	r->stream->editor.probe = poison_probe;
	r->stream->editor.probe_context = poison;
}

/* Whatever happened: frames are given out in order or counted as dropped, and what came is finite. */
static void check_account(struct recording *r, bool drained)
{
	const struct sana_statistics s = stream_fixture_statistics(r->stream);
	const uint64_t pending = drained ? 0 : (uint64_t)r->stream->tag_count;

	assert_int_equal(s.frames_in, r->stream->next_frame);
	assert_int_equal(s.frames_out, r->frames);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped + pending);
	for (int i = 1; i < r->frames; i++)
		assert_true(r->info[i].frame > r->info[i - 1].frame);
	assert_true(floats_are_finite(r->latent, (size_t)r->latents * r->latent_floats));
	print_message("%d frames in, %d out, %d dropped; %d chunks dropped, %d states discarded, "
		      "%d resets, %d failures\n",
		      (int)s.frames_in, (int)s.frames_out, (int)s.frames_dropped,
		      (int)s.chunks_dropped, (int)s.states_discarded, (int)s.resets,
		      (int)s.failures);
}

static void check_counts(struct recording *r, int dropped, int discarded, int resets)
{
	const struct sana_statistics s = stream_fixture_statistics(r->stream);

	assert_int_equal(s.chunks_dropped, dropped);
	assert_int_equal(s.states_discarded, discarded);
	assert_int_equal(s.resets, resets);
	assert_int_equal(s.failures, 0);
}

/* ------------------------------------------------------------------------------------ latents */

/* A later chunk is dropped: the next one follows the chunk before it, at its position. */
static void check_latent_dropped(const struct stream_fixture *fixture, float value)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .latent = true, .from = 2, .until = 3, .value = value };
	struct editor_fixture *other = editor_fixture_open(fixture, &options);
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);

	poison_set(r, &poison);
	recording_feed_chunks(r, 4);
	assert_int_equal(poison.done, 1);
	assert_int_equal(r->chunks, 3);
	assert_int_equal(r->chunk_index[2], 3);
	assert_int_equal(r->info[9 + 6].frame, 9 + 12);
	assert_int_equal(r->info[9 + 6].timestamp_ns, stream_fixture_time(9 + 12));
	assert_int_equal(r->info[9 + 6].index_in_chunk, 0);
	check_counts(r, 1, 0, 0);
	assert_int_equal(stream_fixture_statistics(r->stream).frames_dropped, FIXTURE_CHUNK_FRAMES);
	check_account(r, false);

	editor_fixture_caption(other, fixture->prompt_a);
	for (int i = 0; i < 3; i++) {
		if (i == 2)
			other->latent += 3;
		editor_fixture_follow(other, r, i);
		editor_fixture_assert_same(other, r, i);
		assert_int_equal(editor_save(&other->editor, &other->op), 1);
	}
	recording_close(r);
	editor_fixture_close(other);
}

static void test_bad_latents_cost_their_chunk(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_values); i++)
		check_latent_dropped(*state, bad_values[i]);
}

/* Nothing is carried yet, so the next frames begin a new stream. */
static void test_bad_latents_of_the_first_chunk(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .latent = true, .until = 1, .value = NAN };
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *fresh = recording_open(fixture, &options, fixture->prompt_a);

	poison_set(r, &poison);
	recording_feed_chunks(r, 1);
	assert_int_equal(r->frames, 0);
	fresh->pushed = r->pushed;
	recording_feed_chunks(r, 2);
	recording_feed_chunks(fresh, 2);
	recording_assert_same(r, 0, fresh, 0, 2);
	assert_int_equal(r->info[0].frame, 9);
	assert_true(r->info[0].prompt_changed);
	check_counts(r, 1, 0, 0);
	check_account(r, false);
	recording_close(fresh);
	recording_close(r);
}

/* Frames of the second chunk that are already there go with the first. */
static void test_bad_first_chunk_while_the_second_comes_in(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .latent = true, .until = 1, .value = INFINITY };
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *fresh = recording_open(fixture, &options, fixture->prompt_a);
	enum sana_stage stage = SANA_STAGE_NONE;

	poison_set(r, &poison);
	recording_feed(r, 8);
	recording_push(r);
	while (stage != SANA_STAGE_DENOISE)
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	recording_push(r);
	recording_settle(r);
	fresh->pushed = r->pushed;
	assert_int_equal(stream_fixture_statistics(r->stream).frames_dropped, 10);
	recording_feed_chunks(r, 1);
	recording_feed_chunks(fresh, 1);
	recording_assert_same(r, 0, fresh, 0, 1);
	assert_int_equal(r->info[0].frame, 10);
	check_account(r, false);
	recording_close(fresh);
	recording_close(r);
}

/* As many bad results in a row as the option says: history is given up. */
static void check_repeated(const struct stream_fixture *fixture, bool latent, int after)
{
	struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .latent = latent, .from = 1, .until = 1 + after, .value = NAN };
	struct recording *r, *fresh;

	options.health_reset_after = after == 3 ? 0 : after; /* the default */
	r = recording_open(fixture, &options, fixture->prompt_a);
	fresh = recording_open(fixture, &options, fixture->prompt_a);
	poison_set(r, &poison);
	recording_feed_chunks(r, 1 + after);
	assert_int_equal(poison.done, after);
	fresh->pushed = r->pushed;
	recording_feed_chunks(r, 2);
	recording_feed_chunks(fresh, 2);
	recording_assert_same(r, latent ? 1 : 1 + after, fresh, 0, 2);
	check_counts(r, latent ? after : 0, latent ? 0 : after, 1);
	check_account(r, false);
	recording_close(fresh);
	recording_close(r);
}

static void test_repeated_bad_latents_restart(void **state)
{
	check_repeated(*state, true, 3);
	check_repeated(*state, true, 1);
}

static void test_repeated_bad_states_restart(void **state)
{
	check_repeated(*state, false, 3);
	check_repeated(*state, false, 2);
}

/* A good chunk in between: two and one bad ones are not three in a row. */
static void test_a_good_chunk_ends_the_row(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .from = 1, .until = 3, .value = INFINITY };
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);

	poison_set(r, &poison);
	recording_feed_chunks(r, 4);
	assert_int_equal(poison.done, 2);
	poison = (struct poison){ .until = 1, .value = NAN };
	recording_feed(r, 2 * FIXTURE_CHUNK_FRAMES);
	assert_int_equal(poison.done, 1);
	assert_int_equal(r->chunks, 6);
	check_counts(r, 0, 3, 0);
	check_account(r, false);
	recording_close(r);
}

/* A limit that no chunk meets: nothing is ever shown, and the stream ends as any other. */
static void test_a_stream_of_bad_chunks_alone(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recording *r;

	options.health_limit = 1e-3f;
	options.first_chunk_latents = 3;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed(r, 3 * 5 + 2);
	recording_finish(r);
	assert_int_equal(r->frames, 0);
	check_counts(r, 4, 0, 0);
	check_account(r, true);
	recording_close(r);
}

/* ------------------------------------------------------------------------------ carried state */

/*
 * The cache pass of chunk `chunk` went wrong: its pictures are shown, but the next chunk follows the
 * state before it.
 */
static void check_state_discarded(const struct stream_fixture *fixture, int chunk, enum part part,
				  float value)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .from = chunk, .until = chunk + 1, .value = value, .part = part };
	struct editor_fixture *other = editor_fixture_open(fixture, &options);
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);

	poison_set(r, &poison);
	recording_feed_chunks(r, chunk + 3);
	assert_int_equal(poison.done, 1);
	assert_int_equal(r->chunks, chunk + 3);
	assert_int_equal(r->frames, r->pushed);
	check_counts(r, 0, 1, 0);

	editor_fixture_caption(other, fixture->prompt_a);
	for (int i = 0; i < r->chunks; i++) {
		editor_fixture_follow(other, r, i);
		editor_fixture_assert_same(other, r, i);
		if (i == chunk)
			editor_drop(&other->editor);
		else
			assert_int_equal(editor_save(&other->editor, &other->op), 1);
	}
	check_account(r, false);
	recording_close(r);
	editor_fixture_close(other);
}

static void test_bad_states_are_discarded(void **state)
{
	for (int i = 0; i < PART_COUNT; i++)
		check_state_discarded(*state, 2, i, bad_values[i]);
}

static void test_bad_state_of_the_first_chunk(void **state)
{
	check_state_discarded(*state, 0, PART_K, NAN);
	check_state_discarded(*state, 0, PART_STATE, 1e30f);
}

static void test_bad_state_of_the_second_chunk(void **state)
{
	check_state_discarded(*state, 1, PART_V, INFINITY);
}

/* A first chunk of 3 latents leaves room for 3 in the sink; so has the chunk that takes its place. */
static void test_another_chunk_becomes_the_first(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct poison poison = { .until = 2, .value = NAN };
	struct recording *r;

	options.first_chunk_latents = 3;
	r = recording_open(fixture, &options, fixture->prompt_a);
	poison_set(r, &poison);
	recording_feed_chunks(r, 4);
	assert_int_equal(r->stream->editor.cache.chunks, 2);
	assert_int_equal(r->stream->editor.cache.position, 6);
	check_counts(r, 0, 2, 0);
	check_account(r, false);
	recording_close(r);
}

/*
 * A first chunk shorter than the others: what takes its place in the sink is longer. Equal to an
 * editor that has room for it from the start.
 */
static void test_a_longer_chunk_becomes_the_first(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct editor_fixture *other[2];

	recording_feed_chunks(r, 1);
	for (int i = 0; i < 2; i++) {
		options.first_chunk_latents = i ? 3 : 1;
		other[i] = editor_fixture_open(fixture, &options);
		editor_fixture_caption(other[i], fixture->prompt_a);
		editor_fixture_edit(other[i], r->source, 1);
		editor_drop(&other[i]->editor);
		for (int chunk = 0; chunk < 3; chunk++) {
			editor_fixture_edit(other[i], r->source, 3);
			assert_int_equal(editor_save(&other[i]->editor, &other[i]->op), 1);
		}
	}
	assert_memory_equal(editor_latent(&other[0]->editor), editor_latent(&other[1]->editor),
			    3 * r->latent_floats * sizeof(float));
	editor_fixture_close(other[0]);
	editor_fixture_close(other[1]);
	recording_close(r);
}

/* ------------------------------------------------------------------------------------ recache */

/*
 * The repeated cache pass of chunk − 1 went wrong, so that chunk never was: the new prompt follows
 * the state before it, or nothing when it was the first.
 */
static void check_redo_undone(const struct stream_fixture *fixture, int chunk, int rebase)
{
	struct sana_stream_options options = stream_fixture_small();
	struct editor_fixture *other = editor_fixture_open(fixture, &options);
	struct poison poison = { .until = 1, .value = INFINITY, .redo = true };
	struct recording *r;
	double distance;

	options.rebase_latents = rebase;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, chunk);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_RECACHE);
	poison_set(r, &poison);
	recording_feed(r, 3 * FIXTURE_CHUNK_FRAMES);
	assert_int_equal(poison.done, 1);
	assert_int_equal(r->chunks, chunk + 3);
	assert_int_equal(r->info[9 + 6 * (chunk - 1)].ticket, 2);
	assert_int_equal(stream_fixture_statistics(r->stream).recaches, 0);
	check_counts(r, 0, 1, 0);

	editor_fixture_caption(other, fixture->prompt_a);
	for (int i = 0; i < r->chunks; i++) {
		if (i == chunk)
			editor_fixture_caption(other, fixture->prompt_b);
		editor_fixture_follow(other, r, i);
		distance = expected_relative_l2(editor_latent(&other->editor),
						recording_chunk(r, i),
						recording_chunk_floats(r, i));
		assert_true(distance <= (rebase ? TOLERANCE_REBASE : 0));
		if (i == chunk - 1)
			editor_drop(&other->editor);
		else
			assert_int_equal(editor_save(&other->editor, &other->op), 1);
	}
	check_account(r, false);
	recording_close(r);
	editor_fixture_close(other);
}

static void test_bad_recache_is_undone(void **state)
{
	check_redo_undone(*state, 1, 0);
	check_redo_undone(*state, 2, 0);
	check_redo_undone(*state, 3, 0);
}

static void test_bad_recache_after_a_rebase_is_undone(void **state)
{
	check_redo_undone(*state, 2, 1);
	check_redo_undone(*state, 3, 1);
}

/* A dropped chunk has no cache pass to repeat: the prompt goes on with what is there. */
static void test_no_recache_of_a_dropped_chunk(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r[2];

	for (int i = 0; i < 2; i++) {
		struct poison poison = { .latent = true, .from = 2, .until = 3, .value = NAN };

		r[i] = recording_open(fixture, &options, fixture->prompt_a);
		poison_set(r[i], &poison);
		recording_feed_chunks(r[i], 3);
		r[i]->stream->editor.probe = NULL;
		(void)stream_fixture_prompt(r[i]->stream, fixture->prompt_b,
					    i ? SANA_SWITCH_KEEP : SANA_SWITCH_RECACHE);
		recording_feed(r[i], FIXTURE_CHUNK_FRAMES);
		check_counts(r[i], 1, 0, 0);
		assert_int_equal(stream_fixture_statistics(r[i]->stream).recaches, 0);
	}
	recording_assert_same(r[0], 2, r[1], 2, 1);
	recording_close(r[0]);
	recording_close(r[1]);
}

/* ----------------------------------------------------------------------------------- failures */

/* A copy of the CPU's table in which one op fails once; ops know nothing but the device. */
static struct {
	struct kernel_backend table;
	enum kernel_op op;
	int calls_left, result;
} failing;

static int run_failing(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	if (failing.calls_left-- == 0)
		return failing.result;
	return kernel_backend_cpu.run[failing.op](device, params, queue);
}

static void fail_set(struct sana_model *model, enum kernel_op op, int calls)
{
	failing.table = kernel_backend_cpu;
	failing.table.run[op] = run_failing;
	failing.op = op;
	failing.calls_left = calls;
	failing.result = -EIO;
	model->backend.table = &failing.table;
}

/* Pushes and steps until the failure comes; returns the stage in which it did, or NONE for a push. */
static const char *feed_to_failure(struct recording *r, char *name, size_t bytes)
{
	struct sana_error error = { 0 };
	struct sana_frame_info info;
	enum sana_stage stage;
	int result = 0;

	while (result >= 0) {
		struct sana_picture picture =
			stream_fixture_picture(r->fixture, r->pushed, r->width, r->height);

		assert_true(r->pushed < 100);
		result = sana_stream_push(r->stream, &picture, stream_fixture_time(r->pushed),
					  &error);
		r->pushed += result > 0;
		while (result >= 0 && (result = sana_stream_step(r->stream, &stage, &error)) > 0) {
			_cleanup_(freep) uint8_t *rgb = malloc(r->picture_bytes);

			picture = (struct sana_picture){ rgb, (size_t)r->width * 3, r->width,
							 r->height };
			while (sana_stream_pull(r->stream, &picture, &info, NULL) > 0)
				continue;
		}
	}
	assert_int_equal(result, failing.result);
	assert_int_equal(error.code, failing.result);
	(void)snprintf(name, bytes, "%s", error.name);
	print_message("%s\n", error.text);
	return strstr(error.text, "Stage ") ? "stage" : "push";
}

/*
 * An op fails somewhere in the second chunk. The next frame begins a new history under the prompt
 * that was asked for last, and every frame is accounted for.
 */
static void check_failure(const struct stream_fixture *fixture, enum kernel_op op, int calls,
			  const char *where)
{
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *fresh = recording_open(fixture, &options, fixture->prompt_b);
	struct sana_statistics s;
	char name[48];

	recording_feed_chunks(r, 1);
	(void)stream_fixture_prompt(r->stream, fixture->prompt_b, SANA_SWITCH_KEEP);
	fail_set(fixture->model, op, calls);
	assert_string_equal(feed_to_failure(r, name, sizeof(name)), where);
	assert_string_equal(name, "backend.failed");
	fixture->model->backend.table = &kernel_backend_cpu;
	s = stream_fixture_statistics(r->stream);
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);
	assert_int_equal(s.frames_in, r->pushed);

	fresh->pushed = r->pushed;
	recording_feed_chunks(r, 2);
	recording_feed_chunks(fresh, 2);
	recording_assert_same(r, r->chunks - 2, fresh, 0, 2);
	assert_int_equal(r->info[r->frames - 1].ticket, 2);
	s = stream_fixture_statistics(r->stream);
	assert_int_equal(s.frames_in, s.frames_out + s.frames_dropped);
	recording_close(fresh);
	recording_close(r);
}

/* What a GPU answers when a kernel failed, or when it is gone: names of their own, for whoever rebuilds. */
static void test_fault_names(void **state)
{
	static const struct {
		int result;
		const char *name;
	} faults[] = {
		{ -EFAULT, "backend.kernel" },
		{ -ENODEV, "backend.lost" },
		{ -ENOMEM, "memory" },
	};
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	char name[48];

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		struct recording *r = recording_open(fixture, &options, fixture->prompt_a);

		fail_set(fixture->model, KERNEL_OP_euler_step, 1);
		failing.result = faults[i].result;
		(void)feed_to_failure(r, name, sizeof(name));
		assert_string_equal(name, faults[i].name);
		fixture->model->backend.table = &kernel_backend_cpu;
		recording_close(r);
	}
}

static void test_failures_of_every_stage(void **state)
{
	check_failure(*state, KERNEL_OP_patchify, 1, "stage");
	check_failure(*state, KERNEL_OP_conv3d, 5, "stage");
	/* The prompt stage, before and after the first block's keys and values. */
	check_failure(*state, KERNEL_OP_rope_shift, 0, "stage");
	check_failure(*state, KERNEL_OP_linear, 3, "stage");
	check_failure(*state, KERNEL_OP_euler_step, 2, "stage");
	check_failure(*state, KERNEL_OP_health, 0, "stage");
	check_failure(*state, KERNEL_OP_unpatchify, 0, "stage");
	/* The first of these looked at the latents; this one is in the cache pass. */
	check_failure(*state, KERNEL_OP_health, 4, "stage");
}

/* Frames decoded and lost before they were pulled are dropped ones. */
static void test_failure_before_the_frames_are_pulled(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	enum sana_stage stage = SANA_STAGE_NONE;
	struct sana_statistics s;
	struct recording *r;

	options.decode_latents = 5;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed(r, 8);
	recording_push(r);
	while (stage != SANA_STAGE_DECODE)
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	assert_int_equal(stream_output_next(r->stream)->frames, 9);
	fail_set(fixture->model, KERNEL_OP_health, 0);
	while (sana_stream_step(r->stream, &stage, NULL) == 1)
		continue;
	fixture->model->backend.table = &kernel_backend_cpu;
	s = stream_fixture_statistics(r->stream);
	print_message("9 frames decoded, %d dropped\n", (int)s.frames_dropped);
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.frames_dropped, 9);
	assert_int_equal(s.frames_in, 9);
	recording_finish(r);
	assert_int_equal(r->frames, 0);
	recording_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_latents_cost_their_chunk),
		cmocka_unit_test(test_bad_latents_of_the_first_chunk),
		cmocka_unit_test(test_bad_first_chunk_while_the_second_comes_in),
		cmocka_unit_test(test_repeated_bad_latents_restart),
		cmocka_unit_test(test_repeated_bad_states_restart),
		cmocka_unit_test(test_a_good_chunk_ends_the_row),
		cmocka_unit_test(test_a_stream_of_bad_chunks_alone),
		cmocka_unit_test(test_bad_states_are_discarded),
		cmocka_unit_test(test_bad_state_of_the_first_chunk),
		cmocka_unit_test(test_bad_state_of_the_second_chunk),
		cmocka_unit_test(test_another_chunk_becomes_the_first),
		cmocka_unit_test(test_a_longer_chunk_becomes_the_first),
		cmocka_unit_test(test_bad_recache_is_undone),
		cmocka_unit_test(test_bad_recache_after_a_rebase_is_undone),
		cmocka_unit_test(test_no_recache_of_a_dropped_chunk),
		cmocka_unit_test(test_fault_names),
		cmocka_unit_test(test_failures_of_every_stage),
		cmocka_unit_test(test_failure_before_the_frames_are_pulled),
	};

	return cmocka_run_group_tests_name("stream health", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
