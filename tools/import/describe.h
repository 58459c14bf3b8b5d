/* sana-import --describe: what a model directory, a download or a single file holds. */
#pragma once

#include <jansson.h>

#include "base/error.h"

struct describe_options {
	const char *path;
	int width, height; /* 0: the model's */
	bool json, tensors, verify;
};

/* Prints to stdout. −EINVAL also when it was printed, but the tensors do not fit their model. */
int describe(const struct describe_options *options, struct sana_error *error);

/* Prints one JSON object and a newline, drops the reference. */

int describe_print_json(json_t *object);
