/* The frame path of the demo model allocates nothing after the second chunk, on any thread. */
#include "tests/common/stream_fixture.h"

#include <dirent.h>

#include "tests/common/allocations.h"

enum { WARM_UP = 2, CHUNKS = 40, KEEP_AT = 10, RECACHE_AT = 18, RESTART_AT = 26, SMALLEST = 32 };

/* A stream in memory of the test's own: recordings grow. */
struct quiet {
	const struct stream_fixture *fixture;
	struct sana_stream *stream;
	uint8_t *rgb;
	int width, height;
	uint64_t pushed, pulled;
};

static void chunks_run(struct quiet *q, int chunks)
{
	struct sana_picture target = { q->rgb, (size_t)q->width * 3, q->width, q->height };
	const uint64_t end = stream_fixture_statistics(q->stream).chunks + (uint64_t)chunks;
	struct sana_frame_info info;
	enum sana_stage stage;

	/* Until the last one's cache pass is done too, which is the stage after its decoding. */
	while (stream_fixture_statistics(q->stream).chunks < end) {
		const struct sana_picture picture =
			stream_fixture_picture(q->fixture, q->pushed, q->width, q->height);

		q->pushed += (uint64_t)sana_stream_push(q->stream, &picture,
							stream_fixture_time(q->pushed), NULL);
		while (sana_stream_step(q->stream, &stage, NULL) > 0)
			while (sana_stream_pull(q->stream, &target, &info, NULL) > 0)
				q->pulled++;
	}
}

static int thread_count(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int count = -2; /* "." and ".." */

	assert_non_null(tasks);
	while (readdir(tasks))
		count++;
	(void)closedir(tasks);
	return count;
}

/* What is set half-way was made before: sana_prompt_create is the one call that allocates. */
static void prompts_and_chunks(struct quiet *q, int chunks)
{
	static const struct {
		int at;
		enum sana_prompt_switch mode;
	} switches[] = {
		{ KEEP_AT, SANA_SWITCH_KEEP },
		{ RECACHE_AT, SANA_SWITCH_RECACHE },
		{ RESTART_AT, SANA_SWITCH_RESTART },
	};
	uint64_t ticket;
	int done = 0;

	for (size_t i = 0; i < ARRAY_SIZE(switches) && switches[i].at < chunks; i++) {
		chunks_run(q, switches[i].at - done);
		done = switches[i].at;
		assert_int_equal(sana_stream_set_prompt(q->stream,
							i % 2 ? q->fixture->prompt_a :
								q->fixture->prompt_b,
							switches[i].mode, &ticket, NULL),
				 0);
	}
	chunks_run(q, chunks - done);
}

static void check_quiet(const struct stream_fixture *fixture, enum sana_weights_mode weights,
			int threads, int width, int height, int chunks)
{
	struct stream_fixture own = *fixture;
	struct sana_stream_options options = stream_fixture_small();
	struct quiet q = { .fixture = &own, .width = width, .height = height };
	uint64_t before, allocated;
	struct sana_statistics s;
	int threads_before;

	own.model = stream_fixture_model(weights, threads);
	options.width = width;
	options.height = height;
	options.rebase_latents = 17;
	q.stream = stream_fixture_open(&own, &options);
	q.rgb = malloc((size_t)width * (size_t)height * 3);
	assert_non_null(q.rgb);
	(void)stream_fixture_prompt(q.stream, fixture->prompt_a, SANA_SWITCH_KEEP);
	chunks_run(&q, WARM_UP);

	threads_before = thread_count();
	before = allocations_counted();
	allocations_count(true);
	prompts_and_chunks(&q, chunks);
	allocations_count(false);
	allocated = allocations_counted() - before;

	s = stream_fixture_statistics(q.stream);
	print_message("%d threads, %dx%d: %d chunks, %d frames, %d prompts, %d re-bases: %d "
		      "allocations\n",
		      threads, width, height, (int)s.chunks, (int)q.pulled, (int)s.prompts,
		      (int)s.rebases, (int)allocated);
	assert_int_equal(allocated, 0);
	assert_int_equal(thread_count(), threads_before);
	assert_int_equal(s.chunks, WARM_UP + chunks);
	assert_int_equal(s.frames_dropped, 0);
	if (chunks > RESTART_AT) {
		assert_int_equal(s.prompts, 4);
		assert_int_equal(s.recaches, 1);
		assert_int_equal(s.resets, 1);
		assert_true(s.rebases >= 3);
	}
	(void)sana_stream_close(q.stream);
	(void)sana_model_unref(own.model);
	free(q.rgb);
}

/* Without this the zeros below would say nothing. */
static void test_the_counter_counts(void **state)
{
	const struct stream_fixture *fixture = *state;
	const uint64_t before = allocations_counted();
	struct sana_prompt *prompt;

	allocations_count(true);
	assert_int_equal(sana_prompt_create(fixture->model, fixture->text_a, &prompt, NULL), 0);
	allocations_count(false);
	print_message("a prompt: %d allocations\n", (int)(allocations_counted() - before));
	assert_true(allocations_counted() - before >= 4);
	(void)sana_prompt_unref(prompt);
}

static void test_one_thread(void **state)
{
	check_quiet(*state, SANA_WEIGHTS_WIDENED, 1, FIXTURE_SMALL_WIDTH, FIXTURE_SMALL_HEIGHT,
		    CHUNKS);
}

static void test_two_threads(void **state)
{
	check_quiet(*state, SANA_WEIGHTS_MAPPED, 2, FIXTURE_SMALL_WIDTH, FIXTURE_SMALL_HEIGHT,
		    CHUNKS);
}

/* More threads than many machines have cores: they reach the BLAS together late, if ever. */
static void test_many_threads(void **state)
{
	check_quiet(*state, SANA_WEIGHTS_WIDENED, 6, SMALLEST, SMALLEST, 3);
}

static void test_the_models_own_size(void **state)
{
	check_quiet(*state, SANA_WEIGHTS_WIDENED, 2, FIXTURE_WIDTH, FIXTURE_HEIGHT, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_counter_counts),  cmocka_unit_test(test_one_thread),
		cmocka_unit_test(test_two_threads),	    cmocka_unit_test(test_many_threads),
		cmocka_unit_test(test_the_models_own_size),
	};

	if (!ALLOCATIONS_COUNTED) {
		puts("allocations are counted without the sanitizers and with glibc only");
		return 77;
	}
	return cmocka_run_group_tests_name("stream allocation", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
