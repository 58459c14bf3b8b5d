/*
 * What is carried from chunk to chunk: who reads what was written when, whatever is dropped, repeated or
 * undone on the way; its bytes; its health check.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/dit.h"

enum {
	TOKENS = 880, /* of a latent frame at 1280x704 */
	CHUNK = 3,
	MOST_FIRST = 5,
	MAX_PLACES = 512,
};

static struct model_config published(void)
{
	struct model_config config;

	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	return config;
}

/* ------------------------------------------------------------------------------------------ books */

/* Which pass wrote a piece of memory last: all that the bookkeeping has to get right. */
struct place {
	const void *memory;
	int64_t pass;
};

/*
 * The published cache, laid out over a measuring arena: its pointers are offsets, nothing is read or
 * written. `op` plans, so that ops are checked and not run.
 */
struct books {
	struct model_config config;
	struct backend backend;
	struct op_context op;
	struct cache cache;
	struct place place[MAX_PLACES];
	int places;
	int64_t passes;
};

static void books_open(struct books *books)
{
	struct arena arena;

	*books = (struct books){ .config = published() };
	assert_int_equal(backend_open("cpu", &(struct kernel_device_options){ .threads = 1 },
				      &books->backend, NULL),
			 0);
	books->op = (struct op_context){ .backend = &books->backend, .planning = true };
	assert_int_equal(cache_init(&books->cache, &books->config.dit, TOKENS, CHUNK, MOST_FIRST),
			 0);
	arena_measure(&arena);
	/* Offset 0 would look like NULL. */
	(void)arena_take(&arena, "nothing", 1, 1);
	cache_layout(&books->cache, &books->backend, &arena);
	cache_reset(&books->cache);
	assert_false(arena.overflowed);
}

static void books_close(struct books *books)
{
	assert_int_equal(books->op.status, 0);
	backend_close(&books->backend);
	model_config_finish(&books->config);
}

static void books_write(struct books *books, const void *memory, int64_t pass)
{
	int i = 0;

	assert_non_null(memory);
	while (i < books->places && books->place[i].memory != memory)
		i++;
	assert_true(i < MAX_PLACES);
	if (i == books->places)
		books->places++;
	books->place[i] = (struct place){ memory, pass };
}

/* −1: never written. */
static int64_t books_read(const struct books *books, const void *memory)
{
	assert_non_null(memory);
	for (int i = 0; i < books->places; i++)
		if (books->place[i].memory == memory)
			return books->place[i].pass;
	return -1;
}

/* All a saving pass writes, under a number of its own, which is returned. */
static int64_t books_save(struct books *books, bool redo)
{
	struct cache_view view;

	books->passes++;
	for (int i = 0; i < books->config.dit.depth; i++) {
		cache_view(&books->cache, i, true, redo, &view);
		books_write(books, view.left_out, books->passes);
		if (books->config.dit.softmax[i]) {
			books_write(books, view.k_out, books->passes);
			books_write(books, view.v_out, books->passes);
		} else {
			books_write(books, view.state_out, books->passes);
			books_write(books, view.normaliser_out, books->passes);
		}
	}
	return books->passes;
}

/* What a pass must see: nothing (last 0), or what pass `last` left, and sink and window by number. */
struct sight {
	int64_t last, sink, window; /* passes; 0: none */
	int sink_frames, window_frames;
};

static void block_check(const struct books *books, int block, bool save, bool redo,
			const struct sight *want)
{
	const int segments = (want->sink != 0) + (want->window != 0);
	struct cache_view view;

	cache_view(&books->cache, block, save, redo, &view);
	assert_int_equal(view.left_in != NULL, want->last != 0);
	if (want->last)
		assert_int_equal(books_read(books, view.left_in), want->last);
	assert_int_equal(view.left_out != NULL, save);
	if (!books->config.dit.softmax[block]) {
		assert_int_equal(view.segments, 0);
		assert_null(view.k_out);
		assert_int_equal(view.state_out != NULL, save);
		assert_int_equal(view.state_in != NULL, want->last != 0);
		assert_int_equal(view.normaliser_in != NULL, want->last != 0);
		if (!want->last)
			return;
		assert_int_equal(books_read(books, view.state_in), want->last);
		assert_int_equal(books_read(books, view.normaliser_in), want->last);
		return;
	}
	assert_null(view.state_in);
	assert_null(view.state_out);
	assert_int_equal(view.segments, segments);
	for (int i = 0; i < segments; i++) {
		const struct kernel_segment *segment = &view.segment[i];

		/* Sink first, then the window. */
		assert_int_equal(books_read(books, segment->k), i ? want->window : want->sink);
		assert_int_equal(books_read(books, segment->v), i ? want->window : want->sink);
		assert_int_equal(segment->tokens,
				 TOKENS * (i ? want->window_frames : want->sink_frames));
		assert_int_equal(segment->ld, books->config.dit.hidden_size);
		/* A saving pass writes over nothing that it reads. */
		assert_ptr_not_equal(view.k_out, segment->k);
		assert_ptr_not_equal(view.v_out, segment->v);
	}
}

static void books_check(const struct books *books, bool save, bool redo, const struct sight *want)
{
	for (int i = 0; i < books->config.dit.depth; i++)
		block_check(books, i, save, redo, want);
}

/* ------------------------------------------------------------------------------- the worked example */

/* streaming §5: which chunks and how many keys each chunk sees, and the frames they stand for. */
static void worked_example(int first)
{
	struct books books;
	int64_t pass[8] = { 0 };

	books_open(&books);
	for (int c = 0; c < (int)ARRAY_SIZE(pass); c++) {
		const int frames = c ? CHUNK : first;
		const struct sight want = {
			.last = c ? pass[c - 1] : 0,
			.sink = c ? pass[0] : 0,
			.window = c >= 2 ? pass[c - 1] : 0,
			.sink_frames = first,
			.window_frames = CHUNK,
		};
		const int cached = (c >= 1 ? first : 0) + (c >= 2 ? CHUNK : 0);
		const int keys[] = { first, first + 3, first + 6 };

		assert_int_equal(books.cache.position, c ? first + CHUNK * (c - 1) : 0);
		assert_int_equal(cached + frames, keys[MIN_OF(c, 2)]);
		/* Four denoise passes read what the cache pass reads. */
		books_check(&books, false, false, &want);
		books_check(&books, true, false, &want);
		pass[c] = books_save(&books, false);
		cache_commit(&books.cache, &books.op, frames);
	}
	print_message("T0 = %d: keys %d·S, %d·S, then %d·S\n", first, first, first + 3, first + 6);
	books_close(&books);
}

static void chunks_see_the_sink_and_the_chunk_before(void **state)
{
	(void)state;
	worked_example(3);
	worked_example(4);
	worked_example(5);
}

/* ----------------------------------------------------------------------------- dropped, done again */

/* The history as it should be, kept apart from the cache's own books. */
struct story {
	struct books books;
	uint64_t random;
	int64_t pass[4096];
	int frames[4096];
	int chunks;
	int64_t position;
	bool shadow;
	int count[8]; /* of each kind of event */
};

static unsigned int story_random(struct story *story, unsigned int below)
{
	story->random = story->random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(story->random >> 33) % below;
}

/* What a pass sees after the first `chunks` chunks of the story. */
static struct sight story_sight(const struct story *story, int chunks)
{
	struct sight sight = { 0 };

	if (chunks >= 1) {
		sight.last = story->pass[chunks - 1];
		sight.sink = story->pass[0];
		sight.sink_frames = story->frames[0];
	}
	if (chunks >= 2) {
		sight.window = story->pass[chunks - 1];
		sight.window_frames = story->frames[chunks - 1];
	}
	return sight;
}

static void story_chunk(struct story *story, bool discarded)
{
	const int frames = 1 + (int)story_random(story, story->chunks ? CHUNK : MOST_FIRST);
	const int64_t pass = books_save(&story->books, false);

	if (discarded) {
		cache_discard(&story->books.cache);
		story->shadow = false;
		return;
	}
	cache_commit(&story->books.cache, &story->books.op, frames);
	story->pass[story->chunks] = pass;
	story->frames[story->chunks++] = frames;
	story->position += frames;
	story->shadow = true;
}

static void story_again(struct story *story, bool absurd)
{
	struct cache *cache = &story->books.cache;
	struct sight before;
	int64_t pass;

	if (!story->shadow || !story->chunks)
		return;
	before = story_sight(story, story->chunks - 1);
	books_check(&story->books, true, true, &before);
	pass = books_save(&story->books, true);
	if (!absurd) {
		cache_redone(cache, &story->books.op);
		story->pass[story->chunks - 1] = pass;
		return;
	}
	cache_undo(cache);
	story->chunks--;
	story->position = story->chunks ? story->position - story->frames[story->chunks] : 0;
	story->shadow = false;
}

static void story_event(struct story *story)
{
	const unsigned int event = story_random(story, 20);

	if (event < 10) {
		story_chunk(story, false);
		story->count[0]++;
	} else if (event < 12) {
		story_chunk(story, true);
		story->count[1]++;
	} else if (event < 15) {
		story_again(story, false);
		story->count[2]++;
	} else if (event < 17) {
		story_again(story, true);
		story->count[3]++;
	} else if (event < 19) {
		cache_rebase(&story->books.cache, &story->books.op);
		story->position = 0;
		story->count[4]++;
	} else if (story_random(story, 4) == 0) {
		cache_reset(&story->books.cache);
		story->chunks = 0;
		story->position = 0;
		story->shadow = false;
		story->count[5]++;
	}
}

static void any_order_of_events_is_kept_track_of(void **state)
{
	enum { EVENTS = 3000 };
	struct story *story = calloc(1, sizeof(*story));

	(void)state;
	assert_non_null(story);
	books_open(&story->books);
	story->random = 1;
	for (int i = 0; i < EVENTS; i++) {
		struct sight now;

		story_event(story);
		now = story_sight(story, story->chunks);
		books_check(&story->books, false, false, &now);
		books_check(&story->books, true, false, &now);
		assert_int_equal(story->books.cache.chunks, story->chunks);
		assert_int_equal(story->books.cache.position, story->position);
		assert_int_equal(story->books.cache.shadow, story->shadow);
	}
	print_message("%d chunks, %d discarded, %d done again, %d undone, %d re-based, %d resets\n",
		      story->count[0], story->count[1], story->count[2], story->count[3],
		      story->count[4], story->count[5]);
	books_close(&story->books);
	free(story);
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
	struct model_config config = published();
	struct cache cache;

	(void)state;
	assert_int_equal(cache_init(&cache, &config.dit, 0, CHUNK, MOST_FIRST), -EINVAL);
	assert_int_equal(cache_init(&cache, &config.dit, TOKENS, 0, MOST_FIRST), -EINVAL);
	assert_int_equal(cache_init(&cache, &config.dit, TOKENS, CHUNK, 0), -EINVAL);
	config.dit.pairs_t = (int)ARRAY_SIZE(cache.host_cos) + 1;
	assert_int_equal(cache_init(&cache, &config.dit, TOKENS, CHUNK, MOST_FIRST), -EINVAL);
	model_config_finish(&config);
}

/* ------------------------------------------------------------------------------------------ bytes */

/* dit §6.1, figure by figure. */
static void bytes_are_those_of_the_table(void **state)
{
	static const struct {
		int first;
		enum kernel_dtype dtype;
		struct {
			size_t each, blocks, total;
		} line[CACHE_LINES];
		size_t sum;
	} cases[] = {
		{ 3,
		  KERNEL_BF16,
		  { { 1003520, 15, 15052800 },
		    { 8960, 15, 134400 },
		    { 3942400, 20, 78848000 },
		    { 47308800, 5, 236544000 } },
		  330579200 },
		{ 5,
		  KERNEL_BF16,
		  { { 1003520, 15, 15052800 },
		    { 8960, 15, 134400 },
		    { 3942400, 20, 78848000 },
		    { 63078400, 5, 315392000 } },
		  409427200 },
		/* On the CPU what a GPU keeps as BF16 is F32: twice that, S and z the same. */
		{ 3,
		  KERNEL_F32,
		  { { 1003520, 15, 15052800 },
		    { 8960, 15, 134400 },
		    { 7884800, 20, 157696000 },
		    { 94617600, 5, 473088000 } },
		  645971200 },
		{ 5,
		  KERNEL_F32,
		  { { 1003520, 15, 15052800 },
		    { 8960, 15, 134400 },
		    { 7884800, 20, 157696000 },
		    { 126156800, 5, 630784000 } },
		  803667200 },
	};
	struct model_config config = published();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cache_line lines[CACHE_LINES];
		size_t sum = 0;

		cache_lines(&config.dit, TOKENS, CHUNK, cases[i].first, cases[i].dtype, lines);
		for (int l = 0; l < CACHE_LINES; l++) {
			assert_int_equal(lines[l].bytes_per_block, cases[i].line[l].each);
			assert_int_equal(lines[l].blocks, cases[i].line[l].blocks);
			assert_int_equal(lines[l].bytes, cases[i].line[l].total);
			sum += lines[l].bytes;
		}
		assert_int_equal(sum, cases[i].sum);
		print_message("T0 = %d, %s: %zu bytes\n", cases[i].first,
			      cases[i].dtype == KERNEL_F32 ? "F32" : "BF16", sum);
	}
	model_config_finish(&config);
}

/* What the arena takes: two sets, but one sink, and the sink's F32 master. */
static void arena_takes_two_sets(void **state)
{
	static const char prefix[] = "carried state/";
	struct cache_line lines[CACHE_LINES];
	struct books books;
	struct arena arena;
	size_t window, sink, bytes = 0;

	(void)state;
	books_open(&books);
	cache_lines(&books.config.dit, TOKENS, CHUNK, MOST_FIRST, KERNEL_F32, lines);
	sink = lines[3].bytes / (MOST_FIRST + CHUNK) * MOST_FIRST;
	window = lines[3].bytes - sink;
	arena_measure(&arena);
	cache_layout(&books.cache, &books.backend, &arena);
	for (int i = 0; i < arena.lines; i++) {
		assert_memory_equal(arena.line[i].name, prefix, strlen(prefix));
		if (strcmp(arena.line[i].name, "carried state/rotation") != 0)
			bytes += arena.line[i].bytes;
	}
	assert_int_equal(bytes, 2 * (lines[0].bytes + lines[1].bytes + lines[2].bytes + window) +
					sink + sink / 2);
	print_message("two sets, sink and master: %zu bytes\n", bytes);
	books_close(&books);
}

/* dit §7, whose figures have three or four digits. */
static void flops_are_those_of_the_table(void **state)
{
	static const struct {
		int frames, cached;
		double teraflops;
	} cases[] = { { 3, 6, 11.25 }, { 3, 8, 11.45 }, { 3, 0, 10.62 }, { 5, 0, 18.05 } };
	struct model_config config = published();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const double flops = dit_pass_flops(&config.dit, cases[i].frames, TOKENS,
						    cases[i].cached * TOKENS, 300);

		print_message("%d frames, %d cached: %.3f TFLOP, %.2f in the table\n",
			      cases[i].frames, cases[i].cached, flops * 1e-12, cases[i].teraflops);
		assert_true(fabs(flops * 1e-12 / cases[i].teraflops - 1) <= 0.003);
	}
	model_config_finish(&config);
}

/* ----------------------------------------------------------------------------------------- health */

/* A cache small enough to be real: a GDN and a softmax block. */
struct small {
	struct dit_config config;
	struct backend backend;
	struct kernel_queue *queue;
	struct op_context op;
	struct cache cache;
	uint32_t *flags;
	void *block;
	size_t bytes;
};

static void small_open(struct small *small)
{
	const struct kernel_backend *table;
	struct arena arena;

	*small = (struct small){
		.config = { .depth = 2,
			    .hidden_size = 12,
			    .head_dim = 6,
			    .softmax[1] = true,
			    .pairs_t = 1,
			    .pairs_y = 1,
			    .pairs_x = 1 },
	};
	assert_int_equal(backend_open("cpu", &(struct kernel_device_options){ .threads = 1 },
				      &small->backend, NULL),
			 0);
	table = small->backend.table;
	assert_int_equal(cache_init(&small->cache, &small->config, 2, CHUNK, MOST_FIRST), 0);
	arena_measure(&arena);
	cache_layout(&small->cache, &small->backend, &arena);
	(void)arena_take(&arena, "flags", 1, sizeof(*small->flags));
	small->bytes = arena.used;
	assert_int_equal(table->allocate(small->backend.device, small->bytes, &small->block), 0);
	assert_int_equal(table->queue_create(small->backend.device, 0, &small->queue), 0);
	arena_place(&arena, small->block, small->bytes);
	cache_layout(&small->cache, &small->backend, &arena);
	small->flags = arena_take(&arena, "flags", 1, sizeof(*small->flags));
	small->op = (struct op_context){ .backend = &small->backend, .queue = small->queue };
	cache_reset(&small->cache);
}

static void small_close(struct small *small)
{
	assert_int_equal(small->op.status, 0);
	small->backend.table->queue_destroy(small->backend.device, small->queue);
	small->backend.table->release(small->backend.device, small->block, small->bytes);
	backend_close(&small->backend);
}

static uint32_t small_check(struct small *small, bool redo, int frames)
{
	*small->flags = 0;
	cache_check(&small->cache, &small->op, redo, frames, 100.0f, small->flags);
	assert_int_equal(op_wait(&small->op), 0);
	return *small->flags;
}

/* One value in turn is spoiled: it is seen where the pass wrote, and nowhere else. */
static void spoil(struct small *small, bool redo, int frames, float *x, size_t at, bool counts)
{
	static const struct {
		float value;
		uint32_t flag;
	} bad[] = {
		{ NAN, KERNEL_HEALTH_NON_FINITE },
		{ -INFINITY, KERNEL_HEALTH_NON_FINITE },
		{ -101.0f, KERNEL_HEALTH_TOO_LARGE },
		{ 99.0f, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t flags;

		x[at] = bad[i].value;
		flags = small_check(small, redo, frames);
		if (!counts || !bad[i].flag)
			assert_int_equal(flags, 0);
		else
			assert_int_equal(flags & bad[i].flag, bad[i].flag);
		x[at] = 0;
	}
}

static void all_that_a_pass_wrote_is_checked(void **state)
{
	const int frames = 2; /* of at most three */
	struct small small;
	struct cache_view gdn, softmax;
	size_t channels, frame;

	(void)state;
	small_open(&small);
	channels = (size_t)small.config.hidden_size;
	frame = channels * 2;
	for (int chunk = 0; chunk < 3; chunk++) {
		for (int redo = 0; redo <= (chunk > 0); redo++) {
			const size_t states = channels * (size_t)small.config.head_dim;

			cache_view(&small.cache, 0, true, redo, &gdn);
			cache_view(&small.cache, 1, true, redo, &softmax);
			spoil(&small, redo, frames, gdn.left_out, frame - 1, true);
			spoil(&small, redo, frames, gdn.state_out, states - 1, true);
			spoil(&small, redo, frames, gdn.normaliser_out, channels - 1, true);
			spoil(&small, redo, frames, softmax.left_out, 0, true);
			spoil(&small, redo, frames, softmax.k_out, frames * frame - 1, true);
			spoil(&small, redo, frames, softmax.v_out, frames * frame - 1, true);
			/* Left over from a longer chunk, never read. */
			spoil(&small, redo, frames, softmax.k_out, frames * frame, false);
			spoil(&small, redo, frames, softmax.v_out, frames * frame, false);
		}
		cache_commit(&small.cache, &small.op, frames);
	}
	small_close(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_see_the_sink_and_the_chunk_before),
		cmocka_unit_test(any_order_of_events_is_kept_track_of),
		cmocka_unit_test(sizes_that_do_not_fit_are_refused),
		cmocka_unit_test(bytes_are_those_of_the_table),
		cmocka_unit_test(arena_takes_two_sets),
		cmocka_unit_test(flops_are_those_of_the_table),
		cmocka_unit_test(all_that_a_pass_wrote_is_checked),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
