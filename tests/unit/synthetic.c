/* The generator: against the values of the golden files and a second writing of its rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <jansson.h>
#include <math.h>

#include "engine/checkpoint/safetensors.h"
#include "engine/synthetic.h"

/* The rule once more, one value at a time, in the words of tests/golden/README.md. */
static double rule_value(const char *full_name, double offset, double scale, uint64_t i)
{
	uint64_t h = 0xcbf29ce484222325, z;

	for (const char *c = full_name; *c; c++) {
		h ^= (unsigned char)*c;
		h *= 0x100000001b3;
	}
	z = h + (i + 1) * 0x9E3779B97F4A7C15;
	z ^= z >> 30;
	z *= 0xBF58476D1CE4E5B9;
	z ^= z >> 27;
	z *= 0x94D049BB133111EB;
	z ^= z >> 31;
	return offset + scale * (2 * ldexp((double)(z >> 40), -24) - 1);
}

/* call0.input of dit-a is the first chunk, frames 0 to 3, of the 16 frames of its noise. */
static void golden_noise_is_equal(void **state)
{
	enum { CHANNELS = 8, FRAMES = 16, CHUNK = 4, PIXELS = 12 };
	_cleanup_(safetensors_closep) struct safetensors *file = NULL;
	float made[CHUNK * PIXELS];

	(void)state;
	assert_int_equal(safetensors_open("tests/golden/dit-a.safetensors", &file, NULL), 0);
	for (size_t i = 0; i < safetensors_count(file); i++) {
		const struct safetensors_tensor *tensor = safetensors_at(file, i);

		if (strcmp(tensor->name, "call0.input") != 0)
			continue;
		assert_int_equal(tensor->bytes, CHANNELS * sizeof(made));
		for (size_t c = 0; c < CHANNELS; c++) {
			synthetic_fill("dit-a", "noise", 0, 1.7320508, c * FRAMES * PIXELS,
				       ARRAY_SIZE(made), made);
			assert_memory_equal(made, (const char *)tensor->data + c * sizeof(made),
					    sizeof(made));
		}
		print_message("%d values equal, first %.9g\n", CHANNELS * CHUNK * PIXELS, made[0]);
		return;
	}
	fail_msg("call0.input is not in the file");
}

static void rule_is_followed(void **state)
{
	enum { COUNT = 70000 }; /* past the size from which threads share the work */
	float *made = malloc(COUNT * sizeof(*made));
	uint16_t *rounded = malloc(COUNT * sizeof(*rounded));

	(void)state;
	assert_non_null(made);
	assert_non_null(rounded);
	synthetic_fill("a-tag", "some.name", -2, 0.5, 0, COUNT, made);
	synthetic_fill_bf16("a-tag", "some.name", -2, 0.5, 0, COUNT, rounded);
	for (size_t i = 0; i < COUNT; i++) {
		float expected = (float)rule_value("a-tag/some.name", -2, 0.5, i);

		assert_true(made[i] == expected);
		assert_int_equal(rounded[i], weight_float_to_bf16(expected));
	}
	synthetic_fill("a-tag", "some.name", -2, 0.5, 69000, 1000, made + 1000);
	assert_memory_equal(made + 1000, made + 69000, 1000 * sizeof(*made));
	synthetic_fill_bf16("a-tag", "some.name", -2, 0.5, 69001, 999, rounded + 1);
	assert_memory_equal(rounded + 1, rounded + 69001, 999 * sizeof(*rounded));
	print_message("%d values equal\n", COUNT);
	free(rounded);
	free(made);
}

static void scales_of(const char *manifest, const char *network)
{
	json_t *root = json_load_file(manifest, 0, NULL), *record, *shape;
	const char *name;
	size_t d, count = 0;

	assert_non_null(root);
	json_object_foreach(json_object_get(root, "weights"), name, record)
	{
		struct model_key key = { 0 };
		double offset = NAN, scale = NAN, wanted;

		(void)snprintf(key.name, sizeof(key.name), "%s", name);
		shape = json_object_get(record, "shape");
		for (d = 0; d < json_array_size(shape); d++)
			key.shape[key.rank++] = json_integer_value(json_array_get(shape, d));
		synthetic_scale(network, &key, &offset, &scale);
		wanted = json_number_value(json_object_get(record, "scale"));
		if (fabs(scale - wanted) > 1e-12)
			print_message("%s: %.17g, expected %.17g\n", name, scale, wanted);
		assert_true(fabs(scale - wanted) <= 1e-12);
		assert_true(offset == json_number_value(json_object_get(record, "offset")));
		count++;
	}
	print_message("%s: %zu scales equal\n", manifest, count);
	assert_true(count > 20);
	json_decref(root);
}

static void scales_are_those_of_the_manifests(void **state)
{
	(void)state;
	scales_of("tests/golden/dit-a.json", "dit");
	scales_of("tests/golden/dit-b.json", "dit");
	scales_of("tests/golden/vae-a.json", "vae");
	scales_of("tests/golden/text-a.json", "text");
}

static int vae_walk(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, true, visit, context);
}

static int dit_walk(const void *config, model_key_visit visit, void *context)
{
	return dit_keys_visit(config, visit, context);
}

static void whole_networks_are_made(void **state)
{
	struct model_config config;
	struct sana_error error = { 0 };
	const struct weight_tensor *tensor;
	struct weights *weights = NULL;
	float values[64];

	(void)state;
	assert_int_equal(model_config_load("models/demo", &config, &error), 0);
	assert_int_equal(synthetic_weights("vae", 7, vae_walk, &config.vae, &weights, &error), 0);
	assert_int_equal(weights_check(weights, "made", vae_walk, &config.vae, &error), 0);
	tensor = weights_find(weights, "latents_std");
	assert_int_equal(tensor->dtype, KERNEL_F32);
	weights_read_float(tensor, values, 64);
	for (int i = 0; i < 64; i++)
		assert_true(values[i] == 1);
	weights_read_float(weights_find(weights, "latents_mean"), values, 64);
	for (int i = 0; i < 64; i++)
		assert_true(values[i] == 0);
	tensor = weights_find(weights, "encoder.conv_in.conv.bias");
	assert_int_equal(tensor->dtype, KERNEL_BF16);
	assert_int_equal((uintptr_t)tensor->data % KERNEL_ALIGNMENT, 0);
	weights_read_float(tensor, values, 64);
	for (size_t i = 0; i < 64; i++) {
		double wanted = rule_value("synthetic-7/encoder.conv_in.conv.bias", 0, 0.1, i);

		assert_true(values[i] == weight_bf16_to_float(weight_float_to_bf16((float)wanted)));
	}
	print_message("%zu tensors\n", weights_count(weights));
	weights_destroy(weights);

	assert_int_equal(synthetic_weights("dit", 7, dit_walk, &config.dit, &weights, &error), 0);
	assert_int_equal(weights_check(weights, "made", dit_walk, &config.dit, &error), 0);
	assert_non_null(weights_find(weights, "y_embedder.y_embedding"));
	weights_destroy(weights);
	model_config_finish(&config);
}

static int huge_walk(const void *config, model_key_visit visit, void *context)
{
	const struct model_key key = { .name = "huge",
				       .rank = 3,
				       .shape = { INT64_C(1) << 40, INT64_C(1) << 40, 4 } };

	(void)config;
	return visit(context, &key);
}

static void sizes_that_do_not_fit_are_an_error(void **state)
{
	struct weights *weights = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_true(synthetic_weights("dit", 7, huge_walk, NULL, &weights, &error) < 0);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "weights.synthetic");
	assert_null(weights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_noise_is_equal),
		cmocka_unit_test(rule_is_followed),
		cmocka_unit_test(scales_are_those_of_the_manifests),
		cmocka_unit_test(whole_networks_are_made),
		cmocka_unit_test(sizes_that_do_not_fit_are_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
