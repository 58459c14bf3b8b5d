/*
 * From what a user typed to token ids and caption rows (docs/model/text-encoder.md §1).
 */
#pragma once

#include "engine/model_config.h"
#include "engine/tokenizer.h"

enum { PROMPT_MAX_BYTES = 4096 };

/*
 * The token rule of a model: with a prefix (chi_prompt) the stack runs on prefix + prompt, the rows
 * [0] ∪ [prefix_tokens − 1, …) are the caption, and a control piece typed literally is that piece;
 * without one, BOS + pieces of the plain library, all rows. Borrows the tokenizer and the prefix.
 */
struct prompt_rule {
	const struct tokenizer *tokenizer;
	const char *prefix;
	int prefix_tokens; /* n_chi, BOS included; 0 without a prefix */
	int max_tokens;	   /* rows handed to the DiT at most */
	int run_tokens; /* most tokens the stack ever sees: n_chi + max_tokens − 2, or max_tokens */
};

struct prompt_tokens {
	int count;	  /* tokens to run the stack on, real ones only */
	int caption_rows; /* rows of the caption */
	int first_row;	  /* caption row r ≥ 1 is hidden row first_row + r − 1; row 0 is 0 */
	bool cut;	  /* the prompt was longer than the model reads */
	int32_t ids[2 * MODEL_MAX_TOKENS];
};

/*
 * Counts the prefix with the tokenizer. Error "prompt.rule" (−EINVAL) when the prefix leaves no room
 * or the tokenizer has no BOS.
 */
int prompt_rule_init(struct prompt_rule *rule, const struct tokenizer *tokenizer,
		     const struct stream_config *config, struct sana_error *error);

/*
 * Strips white space (Unicode's) from both ends, checks what is left and makes the tokens. Errors
 * (−EINVAL), nothing written: "prompt.empty", "prompt.too-long" (more than PROMPT_MAX_BYTES bytes),
 * "prompt.not-utf8", "prompt.control" (control characters other than tab and newline). A prompt of
 * more tokens than the model reads is cut, as in the reference, and `cut` says so.
 */
int prompt_tokenise(const struct prompt_rule *rule, const char *text, struct prompt_tokens *ret,
		    struct sana_error *error);
