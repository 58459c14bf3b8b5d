/* From a prompt to tokens: the demo rule, the prefix rule, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/prompt.h"
#include "tests/common/expected.h"

/* Ends in a space, as the published one does, so that the space joins the first word. */
#define PREFIX "Given a prompt, make it vivid:\n- keep it short.\nUser Prompt: "

enum { DEMO_TOKENS = 32, MAX_LONG = 512 };

struct scene {
	struct tokenizer *tokenizer;
	struct prompt_rule demo;
	struct prompt_tokens tokens;
};

static int scene_begin(void **state)
{
	static char none[] = "";
	const struct stream_config config = { .max_tokens = DEMO_TOKENS, .chi_prompt = none };
	struct scene *s = calloc(1, sizeof(*s));
	struct sana_error error = { 0 };

	*state = s;
	if (!s || tokenizer_open(EXPECTED_TOKENIZER, &s->tokenizer, &error) < 0)
		return -1;
	return prompt_rule_init(&s->demo, s->tokenizer, &config, &error);
}

static int scene_end(void **state)
{
	struct scene *s = *state;

	tokenizer_close(s->tokenizer);
	free(s);
	return 0;
}

static struct prompt_rule prefix_rule(const struct scene *s, int max_tokens)
{
	static char prefix[] = PREFIX;
	const struct stream_config config = { .max_tokens = max_tokens, .chi_prompt = prefix };
	struct prompt_rule rule;

	assert_int_equal(prompt_rule_init(&rule, s->tokenizer, &config, NULL), 0);
	return rule;
}

static void tokenise(const struct prompt_rule *rule, const char *text, struct prompt_tokens *ret)
{
	struct sana_error error = { 0 };

	if (prompt_tokenise(rule, text, ret, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
}

/* ----------------------------------------------------------------------------------- demo rule */

static void test_demo_token_tests(void **state)
{
	struct scene *s = *state;
	json_t *rules = expected_rules();
	const json_t *tests = json_object_get(rules, "token_tests");

	assert_int_equal(json_array_size(tests), 12);
	for (size_t i = 0; i < json_array_size(tests); i++) {
		const json_t *test = json_array_get(tests, i);
		const char *prompt = json_string_value(json_object_get(test, "prompt"));
		const json_t *ids = json_object_get(test, "ids");
		const int n = (int)json_integer_value(json_object_get(test, "n"));

		tokenise(&s->demo, prompt, &s->tokens);
		print_message("\"%s\": %d tokens\n", prompt, s->tokens.count);
		assert_int_equal(s->tokens.count, n);
		assert_int_equal(s->tokens.caption_rows, n);
		assert_int_equal(s->tokens.first_row, 1);
		assert_int_equal(s->tokens.cut, strlen(prompt) > 100);
		for (int k = 0; k < n; k++)
			assert_int_equal(s->tokens.ids[k],
					 json_integer_value(json_array_get(ids, (size_t)k)));
	}
	json_decref(rules);
}

static void test_demo_rule_has_no_prefix(void **state)
{
	const struct scene *s = *state;

	assert_int_equal(s->demo.prefix_tokens, 0);
	assert_int_equal(s->demo.run_tokens, DEMO_TOKENS);
	assert_int_equal(s->demo.max_tokens, DEMO_TOKENS);
}

static void test_white_space_is_stripped(void **state)
{
	struct scene *s = *state;
	static const char *const same[] = {
		"  golden hour ",
		"\t\r\n\v\f golden hour\r\n",
		"\xc2\xa0golden hour\xe3\x80\x80",
		"\xe2\x80\xa8 golden hour\xc2\x85",
	};
	struct prompt_tokens want;

	tokenise(&s->demo, "golden hour", &want);
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		tokenise(&s->demo, same[i], &s->tokens);
		assert_int_equal(s->tokens.count, want.count);
		assert_memory_equal(s->tokens.ids, want.ids,
				    (size_t)want.count * sizeof(*want.ids));
	}
	/* Inside it is text: the tokenizer keeps it. */
	tokenise(&s->demo, "golden  hour", &s->tokens);
	assert_int_not_equal(s->tokens.count, want.count);
	tokenise(&s->demo, "golden\thour\nplease", &s->tokens);
}

/* Control pieces typed by the user: text under the demo rule, pieces under the published one. */
static void test_literal_bos(void **state)
{
	struct scene *s = *state;
	const struct prompt_rule rule = prefix_rule(s, DEMO_TOKENS);
	int found = 0;

	tokenise(&s->demo, "<bos> <s> sepia", &s->tokens);
	assert_int_equal(s->tokens.ids[0], 2);
	for (int i = 1; i < s->tokens.count; i++)
		assert_true(s->tokens.ids[i] > 3);
	tokenise(&rule, "<bos> <s> sepia", &s->tokens);
	for (int i = 1; i < s->tokens.count; i++)
		found += s->tokens.ids[i] == 2;
	assert_int_equal(found, 1);
}

/* --------------------------------------------------------------------------------- prefix rule */

/* The rule as the reference writes it: pad to the full length, then pick rows by index. */
struct padded {
	int32_t ids[MAX_LONG];
	uint8_t mask[MAX_LONG];
	int rows[MAX_LONG]; /* index of each caption row */
	int length, max_tokens;
};

static struct padded padded_form(const struct scene *s, int n_chi, int max_tokens,
				 const char *prompt)
{
	struct padded p = { .length = n_chi + max_tokens - 2, .max_tokens = max_tokens };
	char joined[1024];
	int n;

	assert_true(p.length <= MAX_LONG);
	(void)snprintf(joined, sizeof(joined), "%s%s", PREFIX, prompt);
	p.ids[0] = tokenizer_bos(s->tokenizer);
	n = 1 + tokenizer_encode(s->tokenizer, joined, strlen(joined), p.ids + 1, p.length - 1);
	for (int i = 0; i < p.length; i++)
		p.mask[i] = i < n;
	for (int r = 1; r < max_tokens; r++)
		p.rows[r] = p.length - (max_tokens - 1) + r - 1;
	return p;
}

static void check_prefix_prompt(struct scene *s, int max_tokens, const char *prompt)
{
	const struct prompt_rule rule = prefix_rule(s, max_tokens);
	const struct padded p = padded_form(s, rule.prefix_tokens, max_tokens, prompt);
	int valid = 0;

	tokenise(&rule, prompt, &s->tokens);
	print_message("%d rows at most, \"%.30s\": %d tokens, %d rows, cut %d\n", max_tokens,
		      prompt, s->tokens.count, s->tokens.caption_rows, s->tokens.cut);
	assert_int_equal(rule.run_tokens, p.length);
	for (int i = 0; i < s->tokens.count; i++) {
		assert_true(p.mask[i]);
		assert_int_equal(s->tokens.ids[i], p.ids[i]);
	}
	assert_true(s->tokens.count == p.length || !p.mask[s->tokens.count]);
	for (int r = 0; r < max_tokens; r++) {
		if (!p.mask[p.rows[r]])
			continue;
		assert_int_equal(p.rows[r], r == 0 ? 0 : s->tokens.first_row + r - 1);
		assert_true(p.rows[r] < s->tokens.count);
		valid++;
	}
	assert_int_equal(valid, s->tokens.caption_rows);
}

static void test_prefix_rows_equal_the_padded_form(void **state)
{
	static const char *const prompts[] = {
		"a",
		"make it black and white",
		"42 cats",
		"!",
		"make it look like a very old brown photograph from a museum, with thanks",
	};
	static const int sizes[] = { 1, 2, 3, 8, DEMO_TOKENS, 300 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (size_t k = 0; k < ARRAY_SIZE(prompts); k++)
			check_prefix_prompt(*state, sizes[i], prompts[k]);
}

/* BOS counts, and so does the space at the end of the prefix. */
static void test_prefix_count(void **state)
{
	const struct scene *s = *state;
	const struct prompt_rule rule = prefix_rule(s, DEMO_TOKENS);
	const int pieces = tokenizer_encode(s->tokenizer, PREFIX, strlen(PREFIX), NULL, 0);
	const int without_space =
		tokenizer_encode(s->tokenizer, PREFIX, strlen(PREFIX) - 1, NULL, 0);

	assert_int_equal(rule.prefix_tokens, pieces + 1);
	assert_int_equal(pieces, without_space + 1);
	assert_int_equal(rule.run_tokens, pieces + 1 + DEMO_TOKENS - 2);
}

static void test_cut_says_so(void **state)
{
	struct scene *s = *state;
	const struct prompt_rule rule = prefix_rule(s, 8);
	char text[64];

	/* Pieces of one byte each; the first one may join the prefix's space or not. */
	for (size_t n = 1; n < sizeof(text); n++) {
		memset(text, 'Q', n);
		text[n] = '\0';
		tokenise(&rule, text, &s->tokens);
		assert_in_range(s->tokens.caption_rows, 1, 8);
		assert_int_equal(s->tokens.cut, s->tokens.count == rule.run_tokens && n > 6);
		if (n == sizeof(text) - 1)
			assert_true(s->tokens.cut);
	}
}

static void test_rule_refuses(void **state)
{
	const struct scene *s = *state;
	_cleanup_(freep) char *huge = malloc(MODEL_MAX_TOKENS + 1);
	struct prompt_rule rule = { .max_tokens = -7 };
	struct sana_error error = { 0 };
	struct stream_config config = { .max_tokens = 0 };

	assert_int_equal(prompt_rule_init(&rule, s->tokenizer, &config, &error), -EINVAL);
	assert_string_equal(error.name, "prompt.rule");
	config.max_tokens = MODEL_MAX_TOKENS + 1;
	assert_int_equal(prompt_rule_init(&rule, s->tokenizer, &config, &error), -EINVAL);

	assert_non_null(huge);
	memset(huge, 'Q', MODEL_MAX_TOKENS);
	huge[MODEL_MAX_TOKENS] = '\0';
	config.max_tokens = 300;
	config.chi_prompt = huge;
	assert_int_equal(prompt_rule_init(&rule, s->tokenizer, &config, &error), -EINVAL);
	assert_string_equal(error.name, "prompt.rule");
	print_message("%s\n", error.text);
	assert_int_equal(rule.max_tokens, -7);
	huge[MODEL_MAX_TOKENS - 1] = '\0';
	assert_int_equal(prompt_rule_init(&rule, s->tokenizer, &config, &error), 0);
	assert_int_equal(rule.prefix_tokens, MODEL_MAX_TOKENS);
}

/* ------------------------------------------------------------------------------------- refusals */

static void expect_refused(struct scene *s, const char *text, const char *name)
{
	struct sana_error error = { 0 };
	struct prompt_tokens before;
	int r;

	memset(&s->tokens, 0x5a, sizeof(s->tokens));
	before = s->tokens;
	r = prompt_tokenise(&s->demo, text, &s->tokens, &error);
	print_message("%s: %s\n", error.name, error.text);
	assert_int_equal(r, -EINVAL);
	assert_string_equal(error.name, name);
	assert_int_equal(error.code, r);
	assert_memory_equal(&before, &s->tokens, sizeof(before));
	assert_int_equal(prompt_tokenise(&s->demo, text, &s->tokens, NULL), r);
}

static void test_empty(void **state)
{
	expect_refused(*state, NULL, "prompt.empty");
	expect_refused(*state, "", "prompt.empty");
	expect_refused(*state, " \t\r\n ", "prompt.empty");
	expect_refused(*state, "\xc2\xa0\xe2\x80\x83", "prompt.empty");
}

static void test_length(void **state)
{
	struct scene *s = *state;
	char text[PROMPT_MAX_BYTES + 4];

	memset(text, 'Q', sizeof(text));
	text[PROMPT_MAX_BYTES + 1] = '\0';
	expect_refused(s, text, "prompt.too-long");
	text[PROMPT_MAX_BYTES] = '\0';
	tokenise(&s->demo, text, &s->tokens);
	assert_int_equal(s->tokens.count, DEMO_TOKENS);
	assert_true(s->tokens.cut);
	/* What is stripped does not count. */
	text[PROMPT_MAX_BYTES] = ' ';
	text[PROMPT_MAX_BYTES + 1] = '\0';
	tokenise(&s->demo, text, &s->tokens);
}

static void test_not_utf8(void **state)
{
	static const char *const bad[] = {
		"\x80", /* a continuation byte alone */
		"a\xbf",
		"\xc0\x80", /* overlong forms of U+0000, '/', U+007FF, U+FFFF */
		"\xc1\xaf",
		"\xe0\x9f\xbf",
		"\xf0\x8f\xbf\xbf",
		"\xed\xa0\x80", /* surrogates */
		"\xed\xbf\xbf",
		"\xf4\x90\x80\x80",	/* above U+10FFFF */
		"\xf8\x88\x80\x80\x80", /* five bytes */
		"\xff",
		"sepia \xe2\x82", /* cut off at the end */
		"\xf0\x9f\x8e",
		"\xc3 sepia", /* cut off in the middle */
		"caf\xe9",    /* Latin-1 */
	};
	static const char *const good[] = {
		"\x7e",		"\xc2\xa1",	    "\xdf\xbf",
		"\xe0\xa0\x80", "\xed\x9f\xbf",	    "\xee\x80\x80",
		"\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
		"caf\xc3\xa9",
	};
	struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect_refused(s, bad[i], "prompt.not-utf8");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		tokenise(&s->demo, good[i], &s->tokens);
}

static void test_control_characters(void **state)
{
	struct scene *s = *state;
	char text[] = "sepia ? tone";

	for (int c = 1; c < 0x80; c++) {
		if ((c >= 0x20 && c != 0x7f) || c == '\t' || c == '\n')
			continue;
		text[6] = (char)c;
		expect_refused(s, text, "prompt.control");
	}
	expect_refused(s, "sepia \xc2\x80 tone", "prompt.control");
	expect_refused(s, "sepia \xc2\x9f tone", "prompt.control");
	tokenise(&s->demo, "sepia\n\ttone", &s->tokens);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_demo_token_tests),
		cmocka_unit_test(test_demo_rule_has_no_prefix),
		cmocka_unit_test(test_white_space_is_stripped),
		cmocka_unit_test(test_literal_bos),
		cmocka_unit_test(test_prefix_rows_equal_the_padded_form),
		cmocka_unit_test(test_prefix_count),
		cmocka_unit_test(test_cut_says_so),
		cmocka_unit_test(test_rule_refuses),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_not_utf8),
		cmocka_unit_test(test_control_characters),
	};

	return cmocka_run_group_tests_name("prompt", tests, scene_begin, scene_end);
}
