/*
 * The demo model, 3,000 chunks: memory flat, nothing allocated, all finite. With SANA_SOAK=1 for
 * SANA_SOAK_SECONDS (3600) instead, with a line a minute.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/common/allocations.h"
#include "tests/common/endless.h"
#include "tests/common/expected.h"

enum { SIDE = 32, SOAK_SECONDS = 3600, REPORT_SECONDS = 60 };

/* 0: not asked for. */
static int64_t soak_seconds(void)
{
	const char *soak = getenv("SANA_SOAK"), *text = getenv("SANA_SOAK_SECONDS");
	char *end;
	long seconds;

	if (!soak || strcmp(soak, "1") != 0)
		return 0;
	if (!text)
		return SOAK_SECONDS;
	seconds = strtol(text, &end, 10);
	if (end == text || *end || seconds < 1)
		fail_msg("SANA_SOAK_SECONDS=%s is not a number of seconds", text);
	return seconds;
}

static void demo_model_runs_on(void **state)
{
	static const char *const texts[ENDLESS_PROMPTS] = { "make it sepia", "invert the colors" };
	const struct sana_model_options model = {
		.directory = EXPECTED_DEMO,
		.weights = SANA_WEIGHTS_WIDENED,
	};
	struct endless_options options = {
		.width = SIDE,
		.height = SIDE,
		.chunks = 3000,
		.seconds = soak_seconds(),
		.switch_chunks = 500,
		.rebase_latents = 64,
		.report_chunks = 1000,
		.report_seconds = soak_seconds() ? REPORT_SECONDS : 0,
		.count = allocations_count,
		.allocated = ALLOCATIONS_COUNTED ? allocations_counted : NULL,
	};
	struct sana_error error = { 0 };

	(void)state;
	if (sana_model_open(&model, &options.model, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	for (int i = 0; i < ENDLESS_PROMPTS; i++)
		if (sana_prompt_create(options.model, texts[i], &options.prompt[i], &error) < 0)
			fail_msg("%s: %s", error.name, error.text);
	endless_run(&options);
	for (int i = 0; i < ENDLESS_PROMPTS; i++)
		(void)sana_prompt_unref(options.prompt[i]);
	(void)sana_model_unref(options.model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(demo_model_runs_on),
	};

	return cmocka_run_group_tests_name("stream_soak", tests, NULL, NULL);
}
