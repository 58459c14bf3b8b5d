/* Keys and shapes: equal to the published lists, both ways, and to the demo model's files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <jansson.h>

#include "engine/weights.h"

struct comparison {
	const json_t *expected;
	size_t seen, optional;
	int64_t elements;
};

static int compare_key(void *context, const struct model_key *key)
{
	struct comparison *comparison = context;
	const json_t *shape = json_object_get(comparison->expected, key->name), *value;
	int64_t elements = 1;
	size_t d;

	if (!shape)
		print_message("not in the list: %s\n", key->name);
	assert_non_null(shape);
	assert_int_equal(json_array_size(shape), key->rank);
	json_array_foreach((json_t *)shape, d, value)
	{
		if (json_integer_value(value) != key->shape[d])
			print_message("%s dimension %zu is %" PRId64 "\n", key->name, d,
				      key->shape[d]);
		assert_true(json_integer_value(value) == key->shape[d]);
		elements *= key->shape[d];
	}
	comparison->seen++;
	if (key->optional)
		comparison->optional++;
	comparison->elements += elements;
	return 0;
}

static int dit_walk(const void *config, model_key_visit visit, void *context)
{
	return dit_keys_visit(config, visit, context);
}

static int vae_walk(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, true, visit, context);
}

static int text_walk(const void *config, model_key_visit visit, void *context)
{
	return text_keys_visit(config, visit, context);
}

static void compare_list(const char *path, weights_key_walk walk, const void *config,
			 struct comparison *ret)
{
	json_t *expected = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(expected);
	*ret = (struct comparison){ .expected = expected };
	assert_int_equal(walk(config, compare_key, ret), 0);
	/* all distinct (next test), so equal counts mean equal sets */
	assert_int_equal(ret->seen, json_object_size(expected));
	print_message("%s: %zu keys, %" PRId64 " values\n", path, ret->seen, ret->elements);
	json_decref(expected);
	ret->expected = NULL;
}

static void published_lists_are_equal(void **state)
{
	struct comparison comparison;
	struct model_config config;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	compare_list("tests/data/dit-2b.keys.json", dit_walk, &config.dit, &comparison);
	assert_int_equal(comparison.seen, 588);
	assert_int_equal(comparison.optional, 2);
	assert_true(comparison.elements == INT64_C(2259529648) + 1775360);
	compare_list("tests/data/ltx2-vae.keys.json", vae_walk, &config.vae, &comparison);
	assert_int_equal(comparison.seen, 184);
	assert_int_equal(comparison.optional, 0);
	assert_true(comparison.elements == INT64_C(1222479857));
	compare_list("tests/data/gemma2-2b.keys.json", text_walk, &config.text, &comparison);
	assert_int_equal(comparison.seen, 288);
	assert_int_equal(comparison.optional, 0);
	assert_true(comparison.elements == INT64_C(2614341888));
	model_config_finish(&config);
}

static int add_key(void *context, const struct model_key *key)
{
	struct weight_tensor tensor = { .name = (char *)key->name, .data = "" };

	return weights_add(context, &tensor, false);
}

static void names_are_distinct(void **state)
{
	struct model_config config;
	struct weights *weights;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	assert_int_equal(weights_create(&weights), 0);
	assert_int_equal(dit_walk(&config.dit, add_key, weights), 0);
	assert_int_equal(vae_walk(&config.vae, add_key, weights), 0);
	assert_int_equal(text_walk(&config.text, add_key, weights), 0);
	assert_int_equal(weights_count(weights), 588 + 184 + 288);
	weights_destroy(weights);
	model_config_finish(&config);
}

static int count_to_three(void *context, const struct model_key *key)
{
	int *count = context;

	(void)key;
	return ++*count == 3 ? -77 : 0;
}

static void a_walk_stops_when_asked(void **state)
{
	struct model_config config;
	int count = 0;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	assert_int_equal(dit_walk(&config.dit, count_to_three, &count), -77);
	assert_int_equal(count, 3);
	count = 0;
	assert_int_equal(vae_walk(&config.vae, count_to_three, &count), -77);
	assert_int_equal(count, 3);
	count = 0;
	assert_int_equal(text_walk(&config.text, count_to_three, &count), -77);
	assert_int_equal(count, 3);
	model_config_finish(&config);
}

static void demo_files_are_equal(void **state)
{
	struct model_config config;
	struct sana_error error = { 0 };
	const struct {
		const char *directory, *file;
		weights_key_walk walk;
		const void *config;
		size_t count;
	} files[] = {
		{ "models/demo/dit", "model.safetensors", dit_walk, &config.dit, 130 },
		{ "models/demo/vae", "diffusion_pytorch_model.safetensors", vae_walk, &config.vae,
		  42 },
		{ "models/demo/text_encoder", "model.safetensors", text_walk, &config.text, 24 },
	};

	(void)state;
	assert_int_equal(model_config_load("models/demo", &config, &error), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct weights *weights = NULL;

		assert_int_equal(weights_open(files[i].directory, files[i].file, &weights, &error),
				 0);
		assert_int_equal(weights_check(weights, files[i].directory, files[i].walk,
					       files[i].config, &error),
				 0);
		print_message("%s: %zu tensors\n", files[i].directory, weights_count(weights));
		assert_int_equal(weights_count(weights), files[i].count);
		weights_destroy(weights);
	}
	model_config_finish(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_lists_are_equal),
		cmocka_unit_test(names_are_distinct),
		cmocka_unit_test(a_walk_stops_when_asked),
		cmocka_unit_test(demo_files_are_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
