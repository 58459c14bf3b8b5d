/* Any bytes as a prompt: refused by name, or tokens within what the rule promises. */
#include <errno.h>
#include <stdint.h>

#include "engine/prompt.h"
#include "tests/common/expected.h"

#define PREFIX "Given a prompt, make it vivid:\n- keep it short.\nUser Prompt: "

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A fuzz target has no other way to keep what it opened once. */
static struct {
	struct tokenizer *tokenizer;
	struct prompt_rule rule[2];
} opened;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void open_once(void)
{
	static char prefix[] = PREFIX;
	const struct stream_config demo = { .max_tokens = 32 };
	const struct stream_config published = { .max_tokens = 300, .chi_prompt = prefix };

	if (opened.tokenizer)
		return;
	require(tokenizer_open(EXPECTED_TOKENIZER, &opened.tokenizer, NULL) == 0);
	require(prompt_rule_init(&opened.rule[0], opened.tokenizer, &demo, NULL) == 0);
	require(prompt_rule_init(&opened.rule[1], opened.tokenizer, &published, NULL) == 0);
}

static void check_tokens(const struct prompt_rule *rule, const struct prompt_tokens *tokens)
{
	require(tokens->count >= 1 && tokens->count <= rule->run_tokens);
	require(tokens->caption_rows >= 1 && tokens->caption_rows <= rule->max_tokens);
	require(tokens->first_row >= 1);
	if (tokens->caption_rows > 1)
		require(tokens->first_row + tokens->caption_rows - 1 == tokens->count);
	for (int i = 0; i < tokens->count; i++)
		require(tokens->ids[i] >= 0 && tokens->ids[i] < tokenizer_pieces(opened.tokenizer));
	require(tokens->ids[0] == tokenizer_bos(opened.tokenizer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as long as the text, for the sanitizers. */
	char *text = calloc(size + 1, 1);

	require(text);
	if (size)
		memcpy(text, data, size);
	open_once();
	for (size_t i = 0; i < ARRAY_SIZE(opened.rule); i++) {
		struct sana_error error = { 0 };
		struct prompt_tokens tokens;
		int r = prompt_tokenise(&opened.rule[i], text, &tokens, &error);

		if (r < 0)
			require(r == -EINVAL && strncmp(error.name, "prompt.", 7) == 0 &&
				error.text[0]);
		else
			check_tokens(&opened.rule[i], &tokens);
	}
	free(text);
	return 0;
}
