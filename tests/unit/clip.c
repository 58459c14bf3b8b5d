/* Whole clips: the bidirectional decoder through sana.h, and its place beside the causal one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/util.h"
#include "engine/sana.h"
#include "engine/synthetic.h"

enum { SIDE = 32, LATENTS = 4, FRAMES = 1 + 2 * (LATENTS - 1), CHANNELS = 64, AREA = 4 };

static struct sana_model *model;

static int open_model(void **state)
{
	const struct sana_model_options options = { .directory = "models/demo", .threads = 2 };

	(void)state;
	return sana_model_open(&options, &model, NULL);
}

static int close_model(void **state)
{
	(void)state;
	model = sana_model_unref(model);
	return 0;
}

static void test_frames(void **state)
{
	static uint8_t rgb[2][FRAMES * SIDE * SIDE * 3];
	float latents[LATENTS * AREA * CHANNELS];
	struct sana_error error = { 0 };
	size_t different = 0;

	(void)state;
	synthetic_fill("clip", "latent", 0, 1.5, 0, ARRAY_SIZE(latents), latents);
	assert_int_equal(sana_decode_clip(model, latents, LATENTS, SIDE, SIDE, rgb[0], &error), 0);
	/* The last latent changed: its bidirectional convolutions reach back to earlier frames. */
	for (int i = 0; i < AREA * CHANNELS; i++)
		latents[(LATENTS - 1) * AREA * CHANNELS + i] *= -1;
	assert_int_equal(sana_decode_clip(model, latents, LATENTS, SIDE, SIDE, rgb[1], &error), 0);
	for (size_t i = 0; i < (FRAMES - 2) * SIDE * SIDE * 3; i++)
		different += rgb[0][i] != rgb[1][i];
	print_message("%zu samples of earlier frames depend on the last latent\n", different);
	assert_true(different > 1000);
	/* One latent: one frame. */
	assert_int_equal(sana_decode_clip(model, latents, 1, SIDE, SIDE, rgb[0], &error), 0);
}

static void test_bad(void **state)
{
	struct sana_error error = { 0 };
	float latents[AREA * CHANNELS] = { 0 };
	uint8_t rgb[SIDE * SIDE * 3];

	(void)state;
	assert_int_equal(sana_decode_clip(model, latents, 0, SIDE, SIDE, rgb, &error), -EINVAL);
	assert_string_equal(error.name, "clip.size");
	assert_int_equal(sana_decode_clip(model, latents, 1, SIDE + 1, SIDE, rgb, &error), -EINVAL);
	assert_non_null(strstr(error.text, "multiples of 16"));
	assert_int_equal(sana_decode_clip(model, latents, 1, SIDE, 0, rgb, &error), -EINVAL);
	/* Reflection needs two latent rows. */
	assert_int_equal(sana_decode_clip(model, latents, 1, SIDE, 16, rgb, &error), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
