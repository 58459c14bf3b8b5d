/* What a set of tensors is, told by its names. */
#pragma once

#include "tools/import/set.h"

enum part_kind {
	PART_NONE = -1,
	PART_DIT,
	PART_VAE,
	PART_TEXT,
	PART_COUNT,
};

/* "dit", "vae", "text_encoder": the directories of a model; NULL for PART_NONE. */
const char *part_name(enum part_kind kind);
/* "the DiT", "the VAE", "the text encoder" */
const char *part_title(enum part_kind kind);

/*
 * *ret_text is a phrase for a sentence, static: "the SANA-Streaming DiT", "a Llama-like language
 * model". PART_NONE for other families and for what is not known.
 */
enum part_kind family_of(const struct set *set, const char **ret_text);
