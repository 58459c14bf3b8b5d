/*
 * A kernel that fails on the GPU: the stream and everything else of that model say so by name, and the same
 * process opens it again, with the same results. What a driver can refuse: tests/scripts/cuda-faults.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "engine/stream.h"
#include "tests/common/gpu_stream.h"

enum { SKIPPED = 77, FRAMES = 60 };

static void assert_named(int r, const struct sana_error *error)
{
	assert_true(r < 0);
	printf("  %s: %s\n", error->name, error->text);
	assert_string_equal(error->name, "backend.kernel");
}

static uint64_t life(struct gpu_stream *s)
{
	struct sana_error error = { 0 };

	if (gpu_stream_open(s, &error) < 0 || gpu_stream_run(s, FRAMES, &error) <= 0)
		fail_msg("%s: %s", error.name, error.text);
	return s->digest;
}

/* An op that is given an address nobody has. */
static void kernel_break(struct sana_stream *stream)
{
	OP(&stream->op, health,
	   { .x = (const void *)(uintptr_t)KERNEL_ALIGNMENT,
	     .x_is_float = true,
	     .count = 1024,
	     .limit = 1,
	     .flags = stream->editor.flags });
}

static void kernel_fails(void **state)
{
	struct gpu_stream s;
	struct sana_error error = { 0 };
	struct sana_prompt *prompt = NULL;
	struct sana_model *second = NULL;
	void *memory = NULL;
	uint64_t digest;

	(void)state;
	digest = life(&s);
	for (int i = 0; i < 2; i++) {
		const struct backend *backend = &s.model->backend;

		kernel_break(s.stream);
		assert_named(gpu_stream_run(&s, FRAMES, &error), &error);
		assert_named(gpu_stream_run(&s, FRAMES, &error), &error);
		assert_named(sana_prompt_create(s.model, "another one", &prompt, &error), &error);
		assert_int_equal(backend->table->allocate(backend->device, 1 << 20, &memory),
				 -EFAULT);
		/* The process has one context, and beside the failed model another one has the same. */
		assert_named(gpu_stream_model(&second, &error), &error);
		gpu_stream_close(&s);
		/* Alone it has a new one. */
		assert_true(life(&s) == digest);
	}
	printf("  opened again twice, %d frames with the same bits\n", FRAMES);
	gpu_stream_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(kernel_fails) };
	struct sana_error error;
	struct sana_model *model = NULL;

	if (gpu_stream_model(&model, &error) < 0) {
		printf("skipped: %s\n", error.text);
		return SKIPPED;
	}
	(void)sana_model_unref(model);
	return cmocka_run_group_tests_name("cuda-faults", tests, NULL, NULL);
}
