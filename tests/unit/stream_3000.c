/*
 * Three thousand chunks of a small model: memory flat, nothing allocated, all finite, positions
 * re-based, prompts changed on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "tests/common/allocations.h"
#include "tests/common/endless.h"
#include "tests/common/small_model.h"

#if ALLOCATIONS_COUNTED

static void *thread_allocate(void *context)
{
	(void)context;
	free(malloc(1));
	return NULL;
}

/* The counter itself: each function, and another thread. */
static void every_allocation_is_counted(void **state)
{
	void *volatile memory;
	uint64_t before;
	pthread_t thread;
	void *aligned = NULL;

	(void)state;
	free(malloc(1));
	assert_int_equal(allocations_counted(), 0);
	allocations_count(true);
	memory = malloc(10);
	memory = realloc(memory, 20);
	free(memory);
	memory = calloc(1, 10);
	free(memory);
	memory = aligned_alloc(64, 64);
	free(memory);
	assert_int_equal(posix_memalign(&aligned, 64, 64), 0);
	free(aligned);
	memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(munmap(memory, 4096), 0);
	assert_int_equal(allocations_counted(), 6);
	before = allocations_counted();
	assert_int_equal(pthread_create(&thread, NULL, thread_allocate, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(allocations_counted() > before);
	allocations_count(false);
	atomic_store(&allocations_seen, 0);
}

#endif

static void run(int threads, int chunks, int switch_chunks)
{
	struct endless_options options = {
		.width = SMALL_MODEL_SIDE,
		.height = SMALL_MODEL_SIDE,
		.chunks = chunks,
		.switch_chunks = switch_chunks,
		.rebase_latents = 64,
		.report_chunks = 1000,
		.count = allocations_count,
		.allocated = ALLOCATIONS_COUNTED ? allocations_counted : NULL,
	};
	struct sana_error error = { 0 };
	struct scratch scratch;
	struct sana_model_options model = {
		.directory = scratch.path,
		.threads = threads,
		.weights = SANA_WEIGHTS_WIDENED,
		.without_text = true,
	};

	scratch_create(&scratch);
	small_model_write(&scratch);
	if (sana_model_open(&model, &options.model, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	for (int i = 0; i < ENDLESS_PROMPTS; i++)
		options.prompt[i] = small_model_prompt(options.model, i);
	endless_run(&options);
	for (int i = 0; i < ENDLESS_PROMPTS; i++)
		(void)sana_prompt_unref(options.prompt[i]);
	(void)sana_model_unref(options.model);
	scratch_remove(&scratch);
}

/* One thread: with two, a busy machine makes each of a chunk's barriers wait for a turn. */
static void three_thousand_chunks(void **state)
{
	(void)state;
	run(1, ALLOCATIONS_COUNTED ? 3000 : 40, ALLOCATIONS_COUNTED ? 500 : 15);
}

static void two_threads(void **state)
{
	(void)state;
	run(2, ALLOCATIONS_COUNTED ? 100 : 10, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#if ALLOCATIONS_COUNTED
		cmocka_unit_test(every_allocation_is_counted),
#endif
		cmocka_unit_test(three_thousand_chunks),
		cmocka_unit_test(two_threads),
	};

	return cmocka_run_group_tests_name("stream_3000", tests, NULL, NULL);
}
