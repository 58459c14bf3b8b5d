/*
 * A model directory of the smallest sensible sizes with generated weights: all that a stream does, at a
 * few milliseconds a chunk. As small_model_write leaves it, it has no tokenizer and no text encoder's
 * weights, so it is opened `without_text` and its prompts are made from features.
 */
#pragma once

#include "engine/sana.h"
#include "tests/common/scratch.h"

enum {
	SMALL_MODEL_CAPTION_CHANNELS = 16,
	SMALL_MODEL_CAPTION_ROWS = 5,
	SMALL_MODEL_SIDE = 32, /* pixels; two latents */
};

/* Failures are assertions, here as below. */
void small_model_write(const struct scratch *scratch);

/* For pictures of this size (multiples of 16), and with a text encoder for the `tokenizer` of a file. */
void small_model_write_whole(const struct scratch *scratch, int width, int height,
			     const char *tokenizer);

/* The published 2 B model's configuration and sizes (12 GB), generated weights; takes twice that of memory. */
void published_model_write(const struct scratch *scratch, const char *tokenizer);

/* Generated caption number `which`. */
struct sana_prompt *small_model_prompt(struct sana_model *model, int which);
