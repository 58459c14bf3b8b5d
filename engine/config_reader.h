/* What the four configuration parsers share: how their readers are opened and their limits. */
#pragma once

#include "base/json.h"
#include "engine/model_config.h"

#define CONFIG_ERROR "model.config"

enum { CONFIG_MAX_FILE_BYTES = 1 << 20, CONFIG_MAX_TEXT_BYTES = 1 << 14 };

/* Parses the file and points a reader at it; the caller drops *ret_object. */
static inline int config_open(const char *text, size_t length, const char *where,
			      struct sana_error *error, json_t **ret_object,
			      struct json_reader *ret_reader)
{
	int r = json_parse_object(text, length, JSON_DEFAULT_DEPTH, where, CONFIG_ERROR, ret_object,
				  error);

	if (r < 0)
		return r;
	*ret_reader = (struct json_reader){
		.object = *ret_object,
		.where = where,
		.name = CONFIG_ERROR,
		.error = error,
	};
	return 0;
}
