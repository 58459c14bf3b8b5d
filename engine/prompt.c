/* From what a user typed to token ids and caption rows. */
#include "engine/prompt.h"

#include <errno.h>

#include "base/utf8.h"

struct span {
	const char *text;
	size_t length;
};

/*
 * The published rule was made with a tokenizer that knows literal control pieces, the rule without a
 * prefix with the plain library (docs/model/text-encoder.md §2).
 */
static int pieces_encode(const struct prompt_rule *rule, struct span text, int32_t *ids,
			 int capacity)
{
	if (rule->prefix[0])
		return tokenizer_encode_literals(rule->tokenizer, text.text, text.length, ids,
						 capacity);
	return tokenizer_encode(rule->tokenizer, text.text, text.length, ids, capacity);
}

static int prefix_count(struct prompt_rule *rule, struct sana_error *error)
{
	const struct span prefix = { rule->prefix, strlen(rule->prefix) };
	int n;

	if (!prefix.length) {
		rule->run_tokens = rule->max_tokens;
		return 0;
	}
	n = pieces_encode(rule, prefix, NULL, 0);
	if (n < 0)
		return sana_error_set(error, n, "prompt.rule",
				      "The tokenizer fails on the model's prompt prefix.");
	if (n == 0 || n >= MODEL_MAX_TOKENS)
		return sana_error_set(
			error, -EINVAL, "prompt.rule",
			"The model's prompt prefix makes %d tokens; 1 to %d leave room "
			"for a prompt.",
			n, MODEL_MAX_TOKENS - 1);
	rule->prefix_tokens = 1 + n;
	/* −2: BOS is in both, and the prefix's last token is a space that joins the first word. */
	rule->run_tokens = rule->prefix_tokens + rule->max_tokens - 2;
	return 0;
}

int prompt_rule_init(struct prompt_rule *rule, const struct tokenizer *tokenizer,
		     const struct stream_config *config, struct sana_error *error)
{
	struct prompt_rule made = {
		.tokenizer = tokenizer,
		.prefix = config->chi_prompt ? config->chi_prompt : "",
		.max_tokens = config->max_tokens,
	};
	int r;

	if (tokenizer_bos(tokenizer) < 0)
		return sana_error_set(error, -EINVAL, "prompt.rule",
				      "The tokenizer has no piece that begins a text (BOS).");
	if (config->max_tokens < 1 || config->max_tokens > MODEL_MAX_TOKENS)
		return sana_error_set(error, -EINVAL, "prompt.rule",
				      "max_tokens is %d, must be 1 to %d.", config->max_tokens,
				      MODEL_MAX_TOKENS);
	r = prefix_count(&made, error);
	if (r < 0)
		return r;
	*rule = made;
	return 0;
}

/* Stops at the first byte that is not UTF-8: checking that is for later. */
static struct span span_strip(struct span text)
{
	uint32_t character;
	int n;

	while (text.length > 0) {
		n = utf8_next(text.text, text.length, &character);
		if (n < 0 || !utf8_is_space(character))
			break;
		text.text += n;
		text.length -= (size_t)n;
	}
	while (text.length > 0) {
		size_t start = text.length - 1;

		while (start > 0 && text.length - start < 4 && (text.text[start] & 0xc0) == 0x80)
			start--;
		n = utf8_next(text.text + start, text.length - start, &character);
		if (n < 0 || (size_t)n != text.length - start || !utf8_is_space(character))
			break;
		text.length = start;
	}
	return text;
}

static int span_check(struct span text, struct sana_error *error)
{
	uint32_t character;
	size_t at = 0;

	if (text.length == 0)
		return sana_error_set(error, -EINVAL, "prompt.empty",
				      "The prompt is empty; say what the picture should become.");
	if (text.length > PROMPT_MAX_BYTES)
		return sana_error_set(error, -EINVAL, "prompt.too-long",
				      "The prompt has %zu bytes, at most %d are taken; shorten it.",
				      text.length, PROMPT_MAX_BYTES);
	while (at < text.length) {
		int n = utf8_next(text.text + at, text.length - at, &character);

		if (n < 0)
			return sana_error_set(error, -EINVAL, "prompt.not-utf8",
					      "The prompt is not UTF-8 at byte %zu; convert it.",
					      at);
		if (utf8_is_control(character) && character != '\t' && character != '\n')
			return sana_error_set(error, -EINVAL, "prompt.control",
					      "The prompt has the control character U+%04X at byte "
					      "%zu; remove it.",
					      (unsigned int)character, at);
		at += (size_t)n;
	}
	return 0;
}

static int caption_rows(const struct prompt_rule *rule, int count)
{
	if (!rule->prefix_tokens)
		return count;
	return 1 + MAX_OF(0, count - (rule->prefix_tokens - 1));
}

/* Prefix and prompt are one text to the tokenizer: pieces join across the border. */
static int joined_encode(const struct prompt_rule *rule, struct span prompt, int32_t *ids)
{
	const size_t prefix_bytes = strlen(rule->prefix);
	_cleanup_(freep) char *joined = malloc(prefix_bytes + prompt.length + 1);

	if (!joined)
		return -ENOMEM;
	memcpy(joined, rule->prefix, prefix_bytes);
	memcpy(joined + prefix_bytes, prompt.text, prompt.length);
	return pieces_encode(rule, (struct span){ joined, prefix_bytes + prompt.length }, ids,
			     rule->run_tokens - 1);
}

int prompt_tokenise(const struct prompt_rule *rule, const char *text, struct prompt_tokens *ret,
		    struct sana_error *error)
{
	const char *given = text ? text : "";
	const struct span prompt = span_strip((struct span){ given, strlen(given) });
	int pieces, r;

	r = span_check(prompt, error);
	if (r < 0)
		return r;
	pieces = joined_encode(rule, prompt, ret->ids + 1);
	if (pieces < 0)
		return sana_error_set(error, pieces, "prompt.tokens",
				      "The tokenizer fails on this prompt: %s.", strerror(-pieces));
	ret->ids[0] = tokenizer_bos(rule->tokenizer);
	ret->cut = pieces > rule->run_tokens - 1;
	ret->count = MIN_OF(1 + pieces, rule->run_tokens);
	ret->caption_rows = caption_rows(rule, ret->count);
	ret->first_row = rule->prefix_tokens ? rule->prefix_tokens - 1 : 1;
	return 0;
}
