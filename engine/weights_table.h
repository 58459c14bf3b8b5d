/* Inside of the weights table, for weights.c and weights_open.c only. */
#pragma once

#include "engine/weights.h"

struct weights_owned {
	weights_release release;
	void *thing;
	size_t bytes;
};

struct weights {
	struct weight_tensor *tensor; /* sorted by name, names owned */
	size_t count, capacity;
	struct weights_owned *owned;
	size_t owned_count, owned_capacity;
};

/* Adds at the end, unsorted; copies the name, borrows the data. */
int weights_append(struct weights *weights, const struct weight_tensor *tensor);

/* After appending: sorts. A name that occurs twice is returned, NULL otherwise. */
const char *weights_sort(struct weights *weights);
