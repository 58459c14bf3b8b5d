/* What a file is, told by its first bytes, so that a refusal can say it. */
#pragma once

#include "engine/checkpoint/bytes.h"

enum file_look {
	LOOK_UNKNOWN,
	LOOK_TORCH,	  /* a zip file: torch.save, or any other */
	LOOK_SAFETENSORS, /* a length and a JSON object */
	LOOK_JSON,
	LOOK_TORCH_LEGACY, /* torch.save before 1.6: not supported, refused by this name */
	LOOK_TORCH_TAR,	   /* older still */
	LOOK_EMPTY,
	LOOK_OTHER, /* something known that is no checkpoint of ours */
	LOOK_COUNT,
};

/*
 * Reads up to 512 bytes. *ret_text is a phrase for a sentence, "an HTML page (…)", static.
 * LOOK_UNKNOWN also when the file cannot be read.
 */
enum file_look file_look(const struct byte_source *source, const char **ret_text);
