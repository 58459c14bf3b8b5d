/* Comparing a table of tensors with what a configuration wants, all differences at once. */
#include "engine/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/json.h"

enum { LIST_BYTES = 360, NAME_BYTES = 100, SHAPE_BYTES = 112 };

struct comparison {
	const struct weights *weights;
	bool *wanted; /* [count]: some key asked for this tensor */
	char list[LIST_BYTES];
	size_t used;
	int differences, listed;
};

static void difference_add(struct comparison *comparison, const char *format, ...) _printf_(2, 3);

/* Appends while there is room; the rest is only counted. */
static void difference_add(struct comparison *comparison, const char *format, ...)
{
	size_t room = LIST_BYTES - comparison->used;
	char *to = comparison->list + comparison->used;
	int n = 0, more;
	va_list arguments;

	comparison->differences++;
	if (comparison->listed + 1 < comparison->differences)
		return;
	if (comparison->used)
		n = snprintf(to, room, "; ");
	va_start(arguments, format);
	more = (size_t)n < room ? vsnprintf(to + n, room - (size_t)n, format, arguments) : 0;
	va_end(arguments);
	if (more < 0 || (size_t)n + (size_t)more >= room) {
		*to = '\0';
		return;
	}
	comparison->used += (size_t)n + (size_t)more;
	comparison->listed++;
}

static const char *shape_text(char *to, int rank, const int64_t *shape)
{
	size_t used = (size_t)snprintf(to, SHAPE_BYTES, "[");

	for (int d = 0; d < rank && d < MODEL_KEY_RANK && used < SHAPE_BYTES; d++)
		used += (size_t)snprintf(to + used, SHAPE_BYTES - used, "%s%" PRId64, d ? ", " : "",
					 shape[d]);
	if (used < SHAPE_BYTES)
		(void)snprintf(to + used, SHAPE_BYTES - used, rank > MODEL_KEY_RANK ? ", …]" : "]");
	return to;
}

static bool shape_equal(const struct weight_tensor *tensor, const struct model_key *key)
{
	if (tensor->rank != key->rank)
		return false;
	return memcmp(tensor->shape, key->shape, sizeof(key->shape[0]) * (size_t)key->rank) == 0;
}

static int compare_key(void *context, const struct model_key *key)
{
	struct comparison *comparison = context;
	const struct weight_tensor *tensor = weights_find(comparison->weights, key->name);
	char is[SHAPE_BYTES], should[SHAPE_BYTES];

	if (!tensor) {
		if (!key->optional)
			difference_add(comparison, "%s is missing", key->name);
		return 0;
	}
	comparison->wanted[tensor - weights_at(comparison->weights, 0)] = true;
	if (key->optional)
		return 0;
	if (!shape_equal(tensor, key))
		difference_add(comparison, "%s is %s instead of %s", key->name,
			       shape_text(is, tensor->rank, tensor->shape),
			       shape_text(should, key->rank, key->shape));
	if (tensor->dtype == KERNEL_DTYPE_INVALID || tensor->dtype == KERNEL_U8)
		difference_add(comparison, "%s is of a type other than F32, BF16 and F16",
			       key->name);
	return 0;
}

int weights_check(const struct weights *weights, const char *where, weights_key_walk walk,
		  const void *config, struct sana_error *error)
{
	_cleanup_(freep) bool *wanted = calloc(weights_count(weights) + 1, sizeof(*wanted));
	struct comparison comparison = { .weights = weights, .wanted = wanted };
	char name[NAME_BYTES], rest[32] = "";
	int r;

	if (!wanted)
		return sana_error_set(error, -ENOMEM, "weights.mismatch",
				      "%.100s: no memory to check the tensors.", where);
	r = walk(config, compare_key, &comparison);
	if (r < 0)
		return sana_error_set(error, r, "weights.mismatch",
				      "%.100s: the tensors could not be checked: %s.", where,
				      strerror(-r));
	for (size_t i = 0; i < weights_count(weights); i++) {
		if (wanted[i])
			continue;
		json_plain_text(name, sizeof(name), weights_at(weights, i)->name);
		difference_add(&comparison, "%s is unexpected", name);
	}
	if (comparison.differences == 0)
		return 0;
	if (comparison.listed < comparison.differences)
		(void)snprintf(rest, sizeof(rest), "; and %d more",
			       comparison.differences - comparison.listed);
	return sana_error_set(error, -EINVAL, "weights.mismatch",
			      "%.100s does not fit the configuration: %s%s.", where,
			      comparison.list, rest);
}
