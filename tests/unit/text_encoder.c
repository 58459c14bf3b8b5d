/* The text encoder over the demo model: its expected captions, the cheap form, bad ids, streamed layers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "engine/prompt.h"
#include "engine/text_encoder.h"
#include "tests/common/expected.h"

/*
 * The captions come from an F32 run of other code; what two such runs may differ by is about 1e-6, and
 * the project promises 1e-5. Two forms of the same run here differ in the order of sums alone.
 */
#define TOLERANCE_EXPECTED 1e-5
#define TOLERANCE_FORMS 2e-6

#define PREFIX "Given a prompt, make it vivid:\n- keep it short.\nUser Prompt: "

enum { CAPTION_ROWS = 32, HIDDEN = 64, MAX_TOKENS = 128, CONFIG_MAX_BYTES = 65536 };

/* The demo model's text encoder in memory of its own. */
struct encoder {
	struct text_config config;
	struct weights *table;
	struct backend backend;
	struct kernel_queue *queue;
	void *block;
	size_t block_bytes;
	struct text_weights weights;
	struct text_encoder encoder;
	struct op_context op;
	struct tokenizer *tokenizer;
};

static void encoder_layout(struct encoder *e, struct loader *loader, struct op_context *planning)
{
	const void *hidden;

	text_weights_load(loader, &e->config, &e->weights);
	text_encoder_layout(&e->encoder, &e->backend, loader->arena);
	if (planning)
		assert_int_equal(text_encoder_run(&e->encoder, planning, NULL, e->encoder.mask,
						  MAX_TOKENS, &hidden),
				 0);
}

static void encoder_place(struct encoder *e, bool prepare)
{
	struct op_context planning = { .backend = &e->backend, .planning = true };
	struct arena arena;
	struct loader loader = {
		.backend = &e->backend,
		.table = e->table,
		.arena = &arena,
		.measuring = true,
		.prepare = prepare,
		.line = "weights",
	};

	arena_measure(&arena);
	encoder_layout(e, &loader, &planning);
	assert_false(arena.overflowed);
	e->block_bytes = arena.used + planning.workspace.bytes;
	assert_int_equal(e->backend.table->allocate(e->backend.device, e->block_bytes, &e->block),
			 0);
	assert_int_equal(e->backend.table->queue_create(e->backend.device, 0, &e->queue), 0);
	loader.queue = e->queue;
	loader.measuring = false;
	arena_place(&arena, e->block, e->block_bytes);
	encoder_layout(e, &loader, NULL);
	assert_int_equal(loader.status, 0);
	e->op = (struct op_context){ .backend = &e->backend, .queue = e->queue };
	e->op.workspace.bytes = planning.workspace.bytes;
	e->op.workspace.data = arena_take(&arena, "workspace", 1, planning.workspace.bytes);
	assert_false(arena.overflowed);
	assert_int_equal(text_encoder_prepare(&e->encoder, &e->op), 0);
}

/* `table`: NULL, or what takes the place of the CPU's. */
static struct encoder *encoder_open_on(const struct kernel_backend *table, bool prepare)
{
	static const char directory[] = EXPECTED_DEMO "/text_encoder";
	_cleanup_(freep) char *text = NULL;
	struct encoder *e = calloc(1, sizeof(*e));
	struct sana_error error = { 0 };
	size_t length;

	assert_non_null(e);
	if (file_read(EXPECTED_DEMO "/text_encoder/config.json", CONFIG_MAX_BYTES, "test", &text,
		      &length, &error) < 0 ||
	    text_config_parse(text, length, "config.json", &e->config, &error) < 0 ||
	    weights_open(directory, "model.safetensors", &e->table, &error) < 0 ||
	    tokenizer_open(EXPECTED_TOKENIZER, &e->tokenizer, &error) < 0 ||
	    backend_open("cpu", &(struct kernel_device_options){ .threads = 1 }, &e->backend,
			 &error) < 0)
		fail_msg("%s", error.text);
	if (table)
		e->backend.table = table;
	e->encoder = (struct text_encoder){
		.config = &e->config,
		.weights = &e->weights,
		.softcap = true, /* as the demo model's stream.json says */
		.max_tokens = MAX_TOKENS,
	};
	encoder_place(e, prepare);
	return e;
}

static struct encoder *encoder_open(bool prepare)
{
	return encoder_open_on(NULL, prepare);
}

static void encoder_close(struct encoder *e)
{
	text_encoder_finish(&e->encoder, &e->backend);
	e->backend.table->queue_destroy(e->backend.device, e->queue);
	e->backend.table->release(e->backend.device, e->block, e->block_bytes);
	backend_close(&e->backend);
	tokenizer_close(e->tokenizer);
	weights_destroy(e->table);
	free(e);
}

static void run(struct encoder *e, const int32_t *ids, const uint8_t *mask, int tokens, float *to)
{
	const void *hidden = NULL;

	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, mask, tokens, &hidden), 0);
	op_download(&e->op, to, hidden, (size_t)tokens * HIDDEN * sizeof(*to));
	assert_int_equal(op_wait(&e->op), 0);
}

static void tokenise(const struct encoder *e, char *prefix, const char *text,
		     struct prompt_rule *ret_rule, struct prompt_tokens *ret)
{
	const struct stream_config config = { .max_tokens = CAPTION_ROWS, .chi_prompt = prefix };

	assert_int_equal(prompt_rule_init(ret_rule, e->tokenizer, &config, NULL), 0);
	assert_int_equal(prompt_tokenise(ret_rule, text, ret, NULL), 0);
}

static int two_ways(void **state)
{
	struct encoder **pair = calloc(2, sizeof(*pair));

	if (!pair)
		return -1;
	*state = pair;
	pair[0] = encoder_open(false);
	pair[1] = encoder_open(true);
	return 0;
}

static int two_ways_end(void **state)
{
	struct encoder **pair = *state;

	encoder_close(pair[0]);
	encoder_close(pair[1]);
	free(pair);
	return 0;
}

/* -------------------------------------------------------------------------------------- captions */

static void check_caption(struct encoder *e, const char *name, const char *prompt)
{
	const size_t bytes = sizeof(float) * CAPTION_ROWS * HIDDEN;
	_cleanup_(freep) float *want = expected_tensor(name, bytes);
	float got[CAPTION_ROWS * HIDDEN];
	struct prompt_tokens tokens;
	struct prompt_rule rule;
	double off;

	assert_non_null(want);
	tokenise(e, NULL, prompt, &rule, &tokens);
	run(e, tokens.ids, NULL, tokens.count, got);
	off = expected_relative_l2(got, want, (size_t)tokens.count * HIDDEN);
	print_message("%s \"%s\": %d rows, relative L2 %.3e\n", name, prompt, tokens.count, off);
	assert_true(off <= TOLERANCE_EXPECTED);
}

static void test_expected_captions(void **state)
{
	struct encoder **pair = *state;
	json_t *rules = expected_rules();
	const char *a = json_string_value(json_object_get(rules, "prompt_a"));
	const char *b = json_string_value(json_object_get(rules, "prompt_b"));

	assert_non_null(a);
	assert_non_null(b);
	for (int prepared = 0; prepared < 2; prepared++) {
		print_message("weights %s\n", prepared ? "widened" : "as mapped");
		check_caption(pair[prepared], "caption.a", a);
		check_caption(pair[prepared], "caption.b", b);
	}
	json_decref(rules);
}

/* The padded rows of the expected captions are those of pad tokens that see the real ones. */
static void test_expected_padded_rows(void **state)
{
	struct encoder **pair = *state;
	const size_t bytes = sizeof(float) * CAPTION_ROWS * HIDDEN;
	_cleanup_(freep) float *want = expected_tensor("caption.b", bytes);
	int32_t ids[CAPTION_ROWS] = { 2, 351, 311, 459, 475, 318, 345 };
	uint8_t mask[CAPTION_ROWS] = { 1, 1, 1, 1, 1, 1, 1 };
	float got[CAPTION_ROWS * HIDDEN];
	double off;

	assert_non_null(want);
	run(pair[1], ids, mask, CAPTION_ROWS, got);
	off = expected_relative_l2(got, want, CAPTION_ROWS * HIDDEN);
	print_message("all 32 rows: relative L2 %.3e\n", off);
	assert_true(off <= TOLERANCE_EXPECTED);
}

static void test_softcap_switch(void **state)
{
	struct encoder **pair = *state;
	float on[CAPTION_ROWS * HIDDEN], off[CAPTION_ROWS * HIDDEN];
	struct prompt_tokens tokens;
	struct prompt_rule rule;
	double difference;

	tokenise(pair[1], NULL, "turn day into night", &rule, &tokens);
	run(pair[1], tokens.ids, NULL, tokens.count, on);
	pair[1]->encoder.softcap = false;
	run(pair[1], tokens.ids, NULL, tokens.count, off);
	pair[1]->encoder.softcap = true;
	difference = expected_relative_l2(off, on, (size_t)tokens.count * HIDDEN);
	print_message("soft-cap off instead of on: relative L2 %.3e\n", difference);
	/* models/demo/README.md: 1e-5 to 2.4e-4, depending on the prompt */
	assert_true(difference > 5e-6 && difference < 3e-4);
}

/* ------------------------------------------------------------------------------------ cheap form */

/* A row of the cheap form against the row of the padded form that the published rule picks. */
static double row_difference(const float *cheap, const float *padded,
			     const struct prompt_rule *rule, const struct prompt_tokens *tokens,
			     int row)
{
	const int from = row == 0 ? 0 : tokens->first_row + row - 1;
	const int index = row == 0 ? 0 : rule->run_tokens - (rule->max_tokens - 1) + row - 1;

	return expected_relative_l2(cheap + (size_t)from * HIDDEN, padded + (size_t)index * HIDDEN,
				    HIDDEN);
}

static void check_cheap_form(struct encoder *e, const char *prompt)
{
	static char prefix[] = PREFIX;
	float cheap[MAX_TOKENS * HIDDEN], padded[MAX_TOKENS * HIDDEN];
	uint8_t mask[MAX_TOKENS] = { 0 };
	struct prompt_tokens tokens;
	struct prompt_rule rule;
	double worst = 0;

	tokenise(e, prefix, prompt, &rule, &tokens);
	assert_true(rule.run_tokens <= MAX_TOKENS);
	run(e, tokens.ids, NULL, tokens.count, cheap);
	memset(mask, 1, (size_t)tokens.count);
	for (int i = tokens.count; i < rule.run_tokens; i++)
		tokens.ids[i] = 0;
	run(e, tokens.ids, mask, rule.run_tokens, padded);
	for (int row = 0; row < tokens.caption_rows; row++)
		worst = MAX_OF(worst, row_difference(cheap, padded, &rule, &tokens, row));
	print_message("\"%.40s\": %d tokens of %d, %d rows, worst row %.3e\n", prompt, tokens.count,
		      rule.run_tokens, tokens.caption_rows, worst);
	assert_true(worst <= TOLERANCE_FORMS);
}

static void test_cheap_form_equals_padded_form(void **state)
{
	static const char *const prompts[] = {
		"a",
		"make it black and white",
		"42 cats",
		"now make the picture look like a very old brown photograph from a museum, please",
	};
	struct encoder **pair = *state;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(prompts); i++)
		check_cheap_form(pair[i % 2], prompts[i / 2]);
}

static void test_same_bits_again(void **state)
{
	struct encoder **pair = *state;
	float first[CAPTION_ROWS * HIDDEN], second[CAPTION_ROWS * HIDDEN];
	const int32_t ids[] = { 2, 351, 311, 459, 475, 318, 345 };
	const int32_t others[CAPTION_ROWS] = { 2, 429, 303, 299, 297 };

	run(pair[1], ids, NULL, ARRAY_SIZE(ids), first);
	run(pair[1], others, NULL, CAPTION_ROWS, second);
	run(pair[1], ids, NULL, ARRAY_SIZE(ids), second);
	assert_memory_equal(first, second, sizeof(float) * HIDDEN * ARRAY_SIZE(ids));
}

/* ------------------------------------------------------------------------------------ taps, ids */

struct seen {
	int calls;
	const void *last;
};

static void tap_count(void *context, int index, const void *data, int tokens)
{
	struct seen *seen = context;

	assert_int_equal(index, seen->calls++);
	assert_int_equal(tokens, 3);
	seen->last = data;
}

static void test_taps_in_order(void **state)
{
	struct encoder **pair = *state;
	struct encoder *e = pair[0];
	const int32_t ids[] = { 2, 459, 419 };
	struct seen seen = { 0 };
	const struct text_tap tap = { tap_count, &seen };
	const void *hidden = NULL;

	e->encoder.tap = &tap;
	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, 3, &hidden), 0);
	e->encoder.tap = NULL;
	assert_int_equal(seen.calls, e->config.layers + 1);
	assert_ptr_equal(seen.last, hidden);
}

static void test_bad_ids(void **state)
{
	struct encoder **pair = *state;
	struct encoder *e = pair[0];
	int32_t ids[MAX_TOKENS + 1] = { 2, 459, 419 };
	float got[3 * HIDDEN];
	const void *const untouched = ids;
	const void *hidden = untouched;

	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, 0, &hidden), -EINVAL);
	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, -1, &hidden), -EINVAL);
	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, MAX_TOKENS + 1, &hidden),
			 -EINVAL);
	ids[2] = -1;
	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, 3, &hidden), -EINVAL);
	ids[2] = e->config.vocab_size;
	assert_int_equal(text_encoder_run(&e->encoder, &e->op, ids, NULL, 3, &hidden), -EINVAL);
	assert_ptr_equal(hidden, untouched);
	/* Nothing sticks: the next run works. */
	ids[2] = e->config.vocab_size - 1;
	run(e, ids, NULL, 3, got);
}

/* ------------------------------------------------------------------------------ streamed layers */

/* The CPU's ops on weights that must be prepared first: layers come one by one, into two places. */
static int linear_prepared(struct kernel_device *device, const void *params,
			   struct kernel_queue *queue)
{
	const struct kernel_linear *op = params;

	for (int i = 0; i < op->parts; i++)
		assert_non_null(op->part[i].weight->prepared);
	return kernel_backend_cpu.run[KERNEL_OP_linear](device, params, queue);
}

static int embedding_prepared(struct kernel_device *device, const void *params,
			      struct kernel_queue *queue)
{
	const struct kernel_embedding *op = params;

	assert_non_null(op->table->prepared);
	assert_int_equal(op->table->out, op->rows); /* no row but those looked up */
	return kernel_backend_cpu.run[KERNEL_OP_embedding](device, params, queue);
}

static void test_streamed_layers(void **state)
{
	struct encoder **pair = *state;
	struct kernel_backend table = kernel_backend_cpu;
	const int32_t ids[] = { 2, 351, 311, 459, 475, 318, 345 };
	const int32_t others[] = { 2, 429, 303, 299, 297 };
	float resident[CAPTION_ROWS * HIDDEN], streamed[CAPTION_ROWS * HIDDEN];
	struct encoder *e;

	table.weights_on_device = true;
	table.run[KERNEL_OP_linear] = linear_prepared;
	table.run[KERNEL_OP_embedding] = embedding_prepared;
	e = encoder_open_on(&table, false);
	assert_true(e->encoder.layers.streamed && e->encoder.layers.gathered);
	for (int i = 0; i < 2; i++) {
		run(pair[1], ids, NULL, ARRAY_SIZE(ids), resident);
		run(e, ids, NULL, ARRAY_SIZE(ids), streamed);
		assert_memory_equal(resident, streamed, sizeof(float) * HIDDEN * ARRAY_SIZE(ids));
		run(e, others, NULL, ARRAY_SIZE(others), streamed);
	}
	print_message("block %zu bytes with all layers, %zu with two places\n",
		      pair[1]->block_bytes, e->block_bytes);
	encoder_close(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_expected_captions),
		cmocka_unit_test(test_expected_padded_rows),
		cmocka_unit_test(test_softcap_switch),
		cmocka_unit_test(test_cheap_form_equals_padded_form),
		cmocka_unit_test(test_same_bits_again),
		cmocka_unit_test(test_taps_in_order),
		cmocka_unit_test(test_bad_ids),
		cmocka_unit_test(test_streamed_layers),
	};

	return cmocka_run_group_tests_name("text_encoder", tests, two_ways, two_ways_end);
}
