/*
 * A kernel that fails on the GPU: the stream and everything else of that model say so by name, nothing hangs, and
 * a new process has the GPU again, with the same results. What a driver can refuse: tests/scripts/cuda-faults.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/stream.h"
#include "tests/common/gpu_stream.h"

enum { SKIPPED = 77, FRAMES = 60 };

static void assert_named(int r, const struct sana_error *error)
{
	assert_true(r < 0);
	printf("  %s: %s\n", error->name, error->text);
	(void)fflush(stdout);
	assert_string_equal(error->name, "backend.kernel");
}

/* A stream's whole life: the digest of its pictures; 0 when it failed, which is printed. */
static uint64_t life(struct gpu_stream *s)
{
	struct sana_error error = { 0 };

	if (gpu_stream_open(s, &error) >= 0 && gpu_stream_run(s, FRAMES, &error) > 0)
		return s->digest;
	printf("  %s: %s\n", error.name, error.text);
	return 0;
}

/* The same in a process of its own. */
static uint64_t life_elsewhere(void)
{
	FILE *child = popen("/proc/$PPID/exe life", "r");
	uint64_t digest = 0;
	char line[512];

	assert_non_null(child);
	while (fgets(line, sizeof(line), child))
		if (sscanf(line, "digest %" SCNx64, &digest) != 1)
			printf("  elsewhere: %s", line);
	assert_int_equal(pclose(child), 0);
	return digest;
}

static int life_print(void)
{
	struct gpu_stream s;
	const uint64_t digest = life(&s);

	printf("digest %" PRIx64 "\n", digest);
	gpu_stream_close(&s);
	return digest == 0;
}

/* An op that is given an address nobody has. */
static void kernel_break(struct sana_stream *stream)
{
	OP(stream_op(stream, STREAM_LANE_EDIT), health,
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
	const struct backend *backend;
	void *memory = NULL;
	uint64_t digest;

	(void)state;
	digest = life(&s);
	assert_true(digest != 0 && digest == life_elsewhere());
	backend = &s.model->backend;
	kernel_break(s.stream);
	assert_named(gpu_stream_run(&s, FRAMES, &error), &error);
	assert_named(gpu_stream_run(&s, FRAMES, &error), &error);
	assert_named(sana_prompt_create(s.model, "another one", &prompt, &error), &error);
	assert_int_equal(backend->table->allocate(backend->device, 1 << 20, &memory), -EFAULT);
	/* The process has one context, and beside the failed model another one has the same. */
	assert_named(gpu_stream_model(&second, &error), &error);
	gpu_stream_close(&s);
	/* Alone it would have a new one, were drivers as forgiving; daemon/pipeline_engine.c counts on neither. */
	if (gpu_stream_open(&s, &error) < 0)
		assert_named(-EFAULT, &error);
	else
		assert_true(gpu_stream_run(&s, FRAMES, &error) > 0 && s.digest == digest);
	gpu_stream_close(&s);
	assert_true(life_elsewhere() == digest);
	printf("  a new process: %d frames with the same bits\n", FRAMES);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(kernel_fails) };
	struct sana_error error;
	struct sana_model *model = NULL;

	if (argc > 1 && strcmp(argv[1], "life") == 0)
		return life_print();
	if (gpu_stream_model(&model, &error) < 0) {
		printf("skipped: %s\n", error.text);
		return SKIPPED;
	}
	(void)sana_model_unref(model);
	return cmocka_run_group_tests_name("cuda-faults", tests, NULL, NULL);
}
