/*
 * Positions moved back by rotating what is carried (docs/model/streaming.md §8): the stream goes on as
 * if nothing had happened, and would not if any part were left out.
 */
#include "tests/common/editor_rig.h"

#include "engine/schedule.h"
#include "tests/common/expected.h"

/* Promised is 1e-4; rotations in F32 cost a few of its ulps, ten times that is allowed. */
#define TOLERANCE 2e-6

/* What leaving a part of the state un-rotated changes at least: not to be mistaken for rounding. */
#define CONTROL 5e-4

/* One rotation against many, for keys of order one: an F32 rounding each side. */
#define SINK_TOLERANCE 1e-6

enum {
#ifdef __SANITIZE_ADDRESS__
	LONG_CHUNKS = 30,
	SHORT_CHUNKS = 20,
#else
	LONG_CHUNKS = 200,
	SHORT_CHUNKS = 60,
#endif
	LONG_HEAD_DIM = 48,
	FIRST_FRAMES = 5,
	EVERY_CHUNKS = 10,
	NEVER = INT32_MAX,
};

static const int64_t near_2_31 = ((int64_t)1 << 31) - 20;
static const int64_t at_2_40 = (int64_t)1 << 40;

static float *output_room(const struct editor_rig *rig, int chunks)
{
	float *output = malloc(editor_rig_floats(rig, chunks) * sizeof(*output));

	assert_non_null(output);
	return output;
}

/* The plain run: positions grow from 0, nothing is re-based. */
static float *plain_run(int head_dim, int chunks)
{
	struct editor_rig rig;
	float *output;

	editor_rig_open(&rig, head_dim, FIRST_FRAMES, NEVER);
	output = output_room(&rig, chunks);
	editor_rig_run(&rig, 0, chunks, output);
	assert_int_equal(rig.editor.rebases, 0);
	assert_int_equal(rig.editor.cache.position, editor_rig_first(&rig, chunks));
	editor_rig_close(&rig);
	return output;
}

/* Relative L2 over some chunks, and of the worst of them. */
struct distance {
	double all, worst;
	int worst_chunk;
};

static struct distance distance(const struct editor_rig *rig, int first, int end, const float *got,
				const float *want)
{
	const size_t from = editor_rig_floats(rig, first), to = editor_rig_floats(rig, end);
	struct distance d = {
		.all = expected_relative_l2(got + from, want + from, to - from),
		.worst = -1,
	};

	for (int chunk = first; chunk < end; chunk++) {
		const size_t at = editor_rig_floats(rig, chunk);
		const double off = expected_relative_l2(got + at, want + at,
							editor_rig_floats(rig, chunk + 1) - at);

		/* A NaN counts as worse. */
		if (off <= d.worst)
			continue;
		d.worst = off;
		d.worst_chunk = chunk;
	}
	return d;
}

static void compare(const struct editor_rig *rig, int chunks, const float *got, const float *want,
		    const char *what)
{
	const struct distance d = distance(rig, 0, chunks, got, want);

	print_message("D %d, %d chunks, %s: %.2e, worst chunk %d: %.2e\n", rig->config.dit.head_dim,
		      chunks, what, d.all, d.worst_chunk, d.worst);
	assert_true(d.all <= TOLERANCE);
}

/* ------------------------------------------------------------------------------- equal to plain */

/* A run that starts at `position` and re-bases at `limit`. */
static void run_and_compare(int head_dim, int chunks, int64_t position, int limit, uint64_t rebases,
			    const float *plain)
{
	_cleanup_(freep) float *output = NULL;
	struct editor_rig rig;
	char what[80];

	editor_rig_open(&rig, head_dim, FIRST_FRAMES, limit);
	output = output_room(&rig, chunks);
	rig.editor.cache.position = position;
	editor_rig_run(&rig, 0, chunks, output);
	(void)snprintf(what, sizeof(what), "from position %lld, limit %d, re-based %d times",
		       (long long)position, limit, (int)rig.editor.rebases);
	compare(&rig, chunks, output, plain, what);
	assert_int_equal(rig.editor.rebases, rebases);
	/* Never larger than the limit and one chunk, whatever it started with. */
	assert_true(rig.editor.cache.position < (int64_t)limit + FIRST_FRAMES);
	editor_rig_close(&rig);
}

static void long_run_equals_the_plain_one(void **state)
{
	_cleanup_(freep) float *plain = plain_run(LONG_HEAD_DIM, LONG_CHUNKS);
	const int limit = EVERY_CHUNKS * RIG_CHUNK;

	(void)state;
	run_and_compare(LONG_HEAD_DIM, LONG_CHUNKS, 0, limit, LONG_CHUNKS / EVERY_CHUNKS - 1,
			plain);
	/* Positions of the engine are an int's: 2^40 is re-based before it is used. */
	run_and_compare(LONG_HEAD_DIM, LONG_CHUNKS, near_2_31, NEVER, 1, plain);
	run_and_compare(LONG_HEAD_DIM, LONG_CHUNKS, at_2_40, NEVER, 1, plain);
}

static void other_head_dims_equal_the_plain_run(void **state)
{
	static const int head_dims[] = { 80, 112 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(head_dims); i++) {
		_cleanup_(freep) float *plain = plain_run(head_dims[i], SHORT_CHUNKS);

		run_and_compare(head_dims[i], SHORT_CHUNKS, 0, EVERY_CHUNKS * RIG_CHUNK,
				SHORT_CHUNKS / EVERY_CHUNKS - 1, plain);
	}
}

/* Far away and back between two chunks: rotations by 2^40 are as exact as small ones. */
static void large_shifts_cancel(void **state)
{
	_cleanup_(freep) float *plain = plain_run(LONG_HEAD_DIM, SHORT_CHUNKS);
	_cleanup_(freep) float *output = NULL;
	struct editor_rig rig;
	struct cache *cache = &rig.editor.cache;

	(void)state;
	editor_rig_open(&rig, LONG_HEAD_DIM, FIRST_FRAMES, NEVER);
	output = output_room(&rig, SHORT_CHUNKS);
	for (int chunk = 0; chunk < SHORT_CHUNKS; chunk++) {
		editor_rig_run(&rig, chunk, chunk + 1, output);
		if (chunk % EVERY_CHUNKS != 1)
			continue;
		cache->position += at_2_40;
		cache_rebase(cache, &rig.op);
		assert_int_equal(cache->position, 0);
		cache->position = -at_2_40;
		cache_rebase(cache, &rig.op);
	}
	compare(&rig, SHORT_CHUNKS, output, plain, "by 2^40 and back");
	editor_rig_close(&rig);
}

/* ------------------------------------------------------------------------------- what is shadowed */

/*
 * A re-basing between a cache pass and its repetition: the set before that chunk is turned too.
 * Chunks 0, 1 and 2 differ in what that set holds.
 */
static void recache_run(int at, bool rebase, bool undo, float *output, struct editor_rig *rig)
{
	struct editor *editor = &rig->editor;

	editor_rig_open(rig, LONG_HEAD_DIM, FIRST_FRAMES, NEVER);
	editor_rig_run(rig, 0, at + 1, output);
	if (rebase)
		cache_rebase(&editor->cache, &rig->op);
	editor_rig_caption(rig, 1);
	assert_int_equal(editor_recache(editor, &rig->op), 1);
	if (undo)
		cache_undo(&editor->cache);
	editor_rig_run(rig, at + 1, at + 5, output);
	editor_rig_close(rig);
}

static void what_is_shadowed_is_moved_too(void **state)
{
	static const int chunks[] = { 0, 1, 2, 7 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++)
		for (int undo = 0; undo < 2; undo++) {
			const size_t most = (size_t)(FIRST_FRAMES + RIG_CHUNK * (chunks[i] + 5)) *
					    RIG_TOKENS * RIG_CHANNELS;
			_cleanup_(freep) float *plain = calloc(most, sizeof(*plain));
			_cleanup_(freep) float *moved = calloc(most, sizeof(*moved));
			struct editor_rig rig;
			char what[80];

			assert_true(plain && moved);
			recache_run(chunks[i], false, undo, plain, &rig);
			recache_run(chunks[i], true, undo, moved, &rig);
			(void)snprintf(what, sizeof(what), "chunk %d %s after a re-basing",
				       chunks[i], undo ? "undone" : "re-cached");
			compare(&rig, chunks[i] + 5, moved, plain, what);
		}
}

/* --------------------------------------------------------------------------------------- controls */

enum part { PART_NONE, PART_STATES, PART_SINK, PART_WINDOW, PART_COUNT };

/* Turns rows of `heads` heads by `shift` positions: undoes what a re-basing did to them. */
static void turn_back(struct editor_rig *rig, int64_t shift, float *x, size_t rows, int heads)
{
	const struct dit_config *config = &rig->config.dit;
	float cosines[64], sines[64];

	assert_true(config->pairs_t <= (int)ARRAY_SIZE(cosines));
	schedule_rotation(shift, config->pairs_t, cosines, sines);
	OP(&rig->op, rope_shift,
	   {
		   .x = x,
		   .y = x,
		   .x_is_float = true,
		   .y_is_float = true,
		   .cos = cosines,
		   .sin = sines,
		   .rows = rows,
		   .heads = heads,
		   .head_dim = config->head_dim,
		   .pairs = config->pairs_t,
	   });
	assert_int_equal(op_wait(&rig->op), 0);
}

static void part_turn_back(struct editor_rig *rig, enum part part, int64_t shift)
{
	struct cache *cache = &rig->editor.cache;
	struct cache_block *blocks = cache->set[cache->current];

	switch (part) {
	case PART_STATES:
		for (int i = 0; i < RIG_DEPTH; i++)
			if (i != RIG_SOFTMAX_BLOCK)
				turn_back(rig, shift, blocks[i].state,
					  (size_t)rig->config.dit.hidden_size, 1);
		break;
	case PART_SINK:
		turn_back(rig, shift, cache->sink[RIG_SOFTMAX_BLOCK].k, FIRST_FRAMES * RIG_TOKENS,
			  RIG_HEADS);
		break;
	case PART_WINDOW:
		turn_back(rig, shift, blocks[RIG_SOFTMAX_BLOCK].k, RIG_CHUNK * RIG_TOKENS,
			  RIG_HEADS);
		break;
	case PART_NONE:
	case PART_COUNT:
		break;
	}
}

/* Proof that the tests above can fail: one re-basing, with one part of the history left behind. */
static void parts_left_behind_are_noticed(void **state)
{
	static const char *const names[PART_COUNT] = { "nothing", "S", "sink keys", "window keys" };
	enum { AT = 10, END = 12 };
	_cleanup_(freep) float *plain = plain_run(LONG_HEAD_DIM, END);
	_cleanup_(freep) float *output = NULL;

	(void)state;
	for (int part = 0; part < PART_COUNT; part++) {
		struct editor_rig rig;
		int64_t shift;
		double off;

		editor_rig_open(&rig, LONG_HEAD_DIM, FIRST_FRAMES, NEVER);
		free(output);
		output = output_room(&rig, END);
		editor_rig_run(&rig, 0, AT, output);
		shift = rig.editor.cache.position;
		cache_rebase(&rig.editor.cache, &rig.op);
		part_turn_back(&rig, part, shift);
		editor_rig_run(&rig, AT, END, output);
		off = distance(&rig, AT, END, output, plain).all;
		print_message("left behind: %s: %.2e\n", names[part], off);
		if (part == PART_NONE)
			assert_true(off <= TOLERANCE);
		else
			assert_true(off >= CONTROL);
		editor_rig_close(&rig);
	}
}

/* ------------------------------------------------------------------------------------------- sink */

/* Working keys of the sink after 200 latents: moved at every chunk, and once from the master. */
static void sink_keys_do_not_wear(void **state)
{
	enum { CHUNKS = 66, COUNT = FIRST_FRAMES * RIG_TOKENS };
	_cleanup_(freep) float *output = NULL;
	_cleanup_(freep) float *once = NULL;
	struct editor_rig rig;
	const struct cache *cache = &rig.editor.cache;
	const size_t count = (size_t)COUNT * RIG_HEADS * LONG_HEAD_DIM;
	double off, moved;

	(void)state;
	editor_rig_open(&rig, LONG_HEAD_DIM, FIRST_FRAMES, 1);
	output = output_room(&rig, CHUNKS + 1);
	once = malloc(count * sizeof(*once));
	assert_non_null(once);
	editor_rig_run(&rig, 0, CHUNKS, output);
	/* Begins one more chunk, and with it the last re-basing. */
	editor_rig_edit(&rig, CHUNKS, output);
	assert_int_equal(rig.editor.rebases, CHUNKS);
	assert_int_equal(cache->sink_shift, -editor_rig_first(&rig, CHUNKS));
	memcpy(once, cache->sink[RIG_SOFTMAX_BLOCK].k_master, count * sizeof(*once));
	moved = expected_relative_l2(cache->sink[RIG_SOFTMAX_BLOCK].k, once, count);
	turn_back(&rig, cache->sink_shift, once, COUNT, RIG_HEADS);
	off = expected_relative_l2(cache->sink[RIG_SOFTMAX_BLOCK].k, once, count);
	print_message("%d re-basings, %lld latents: %.2e from one rotation, %.2f from the master\n",
		      CHUNKS, (long long)-cache->sink_shift, off, moved);
	assert_true(off <= SINK_TOLERANCE);
	assert_true(moved > 0.1);
	editor_rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_run_equals_the_plain_one),
		cmocka_unit_test(other_head_dims_equal_the_plain_run),
		cmocka_unit_test(large_shifts_cancel),
		cmocka_unit_test(what_is_shadowed_is_moved_too),
		cmocka_unit_test(parts_left_behind_are_noticed),
		cmocka_unit_test(sink_keys_do_not_wear),
	};

	return cmocka_run_group_tests_name("rebase", tests, NULL, NULL);
}
