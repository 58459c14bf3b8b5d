/* Comparing tensors with the published keys: every difference is listed, none is skipped. */
#include "tools/import/plan.h"

#include <errno.h>
#include <inttypes.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/model_keys.h"

#define ERROR_NAME "import.mismatch"

enum { SHAPE_BYTES = 200, NAME_BYTES = 160, SHOWN_BYTES = 260 };

struct comparison {
	struct plan *plan;
	struct part *part;
	const char *prefix; /* in front of every name of the source */
	bool *used;	    /* [set->count] */
	int softmax_taps;   /* kernels that have one tap where the streaming model has three */
	int status;
};

static const char *shape_text(char *to, int rank, const int64_t *shape)
{
	size_t used = (size_t)snprintf(to, SHAPE_BYTES, "[");

	for (int d = 0; d < rank; d++)
		used += (size_t)snprintf(to + used, SHAPE_BYTES - used, "%s%" PRId64, d ? ", " : "",
					 shape[d]);
	(void)snprintf(to + used, SHAPE_BYTES - used, "]");
	return to;
}

static bool dtype_is_wanted(enum safetensors_dtype dtype)
{
	return dtype == SAFETENSORS_F32 || dtype == SAFETENSORS_F16 || dtype == SAFETENSORS_BF16;
}

/* Whether the sizes are the key's; unused tensors may be of any. */
static bool shape_fits(struct comparison *comparison, const struct set_tensor *tensor,
		       const struct model_key *key)
{
	char is[SHAPE_BYTES], should[SHAPE_BYTES];
	int64_t one_tap[MODEL_KEY_RANK];

	if (key->optional ||
	    (tensor->rank == key->rank &&
	     memcmp(tensor->shape, key->shape, sizeof(key->shape[0]) * (size_t)key->rank) == 0))
		return true;
	memcpy(one_tap, key->shape, sizeof(one_tap));
	if (key->rank == 3 && tensor->rank == 3) {
		one_tap[2] = 1;
		comparison->softmax_taps +=
			memcmp(tensor->shape, one_tap, 3 * sizeof(one_tap[0])) == 0;
	}
	comparison->status = text_list_add(&comparison->plan->differences, "%s is %s instead of %s",
					   key->name, shape_text(is, tensor->rank, tensor->shape),
					   shape_text(should, key->rank, key->shape));
	return false;
}

static bool is_causal_kernel(const struct part *part, const struct set_tensor *tensor,
			     const char *name)
{
	return part->converted && strncmp(name, "decoder.", 8) == 0 && tensor->rank == 5;
}

static int compare_key(void *context, const struct model_key *key)
{
	struct comparison *comparison = context;
	struct part *part = comparison->part;
	struct out_tensor *out = &part->out.tensor[part->out.count];
	const struct set_tensor *tensor;
	char name[MODEL_KEY_NAME_BYTES + 16];

	(void)snprintf(name, sizeof(name), "%s%s", comparison->prefix, key->name);
	tensor = set_find(part->set, name);
	if (!tensor) {
		if (!key->optional)
			comparison->status = text_list_add(&comparison->plan->differences,
							   "%s is missing", key->name);
		return comparison->status;
	}
	comparison->used[tensor - part->set->tensor] = true;
	if (!shape_fits(comparison, tensor, key))
		return comparison->status;
	if (!key->optional && !dtype_is_wanted(tensor->dtype))
		comparison->status =
			text_list_add(&comparison->plan->differences,
				      "%s is of type %s; F32, F16 and BF16 are possible", key->name,
				      safetensors_dtype_name(tensor->dtype));
	*out = (struct out_tensor){ .name = tensor->name + strlen(comparison->prefix),
				    .from = tensor,
				    .causal = is_causal_kernel(part, tensor, key->name) };
	part->out.count++;
	return comparison->status;
}

static int keys_walk(const struct plan *plan, enum part_kind kind, struct comparison *comparison)
{
	switch (kind) {
	case PART_DIT:
		return dit_keys_visit(&plan->config.dit, compare_key, comparison);
	case PART_VAE:
		return vae_keys_visit(&plan->config.vae, true, compare_key, comparison);
	case PART_TEXT:
		return text_keys_visit(&plan->config.text, compare_key, comparison);
	case PART_NONE:
	case PART_COUNT:
		break;
	}
	return -EINVAL;
}

/* Published text encoders have "model." in front of every name. */
static const char *common_prefix(const struct part *part)
{
	static const char prefix[] = "model.";

	if (part->kind != PART_TEXT)
		return "";
	for (size_t i = 0; i < part->set->count; i++)
		if (strncmp(part->set->tensor[i].name, prefix, sizeof(prefix) - 1) != 0)
			return "";
	return prefix;
}

static int differences_fail(const struct comparison *comparison, struct sana_error *error)
{
	const struct text_list *list = &comparison->plan->differences;
	char shown[SHOWN_BYTES] = "", hint[96] = "", rest[32] = "";
	size_t used = 0, i;

	for (i = 0; i < list->count; i++) {
		size_t length = strlen(list->line[i]) + 2;

		if (used + length >= sizeof(shown))
			break;
		used += (size_t)snprintf(shown + used, sizeof(shown) - used, "%s%s", i ? "; " : "",
					 list->line[i]);
	}
	if (i < list->count)
		(void)snprintf(rest, sizeof(rest), "; %zu more", list->count - i);
	if (comparison->softmax_taps && (size_t)comparison->softmax_taps == list->count)
		(void)snprintf(hint, sizeof(hint),
			       " It looks like the bidirectional sibling of the model.");
	return sana_error_set(error, -EINVAL, ERROR_NAME, "%.120s (%s) does not fit: %s%s.%s",
			      file_path_tail(comparison->part->set->path), comparison->part->looks,
			      shown, rest, hint);
}

int part_check(struct plan *plan, struct part *part, struct sana_error *error)
{
	_cleanup_(freep) bool *used = calloc(part->set->count + 1, sizeof(*used));
	struct comparison comparison = { .plan = plan, .part = part, .used = used };
	char name[NAME_BYTES];
	int r;

	part->out.tensor = calloc(part->set->count + 1, sizeof(*part->out.tensor));
	if (!used || !part->out.tensor)
		return sana_error_set(error, -ENOMEM, "import.memory",
				      "No memory to compare tensors.");
	comparison.prefix = common_prefix(part);
	r = keys_walk(plan, part->kind, &comparison);
	for (size_t i = 0; r >= 0 && i < part->set->count; i++) {
		if (used[i])
			continue;
		json_plain_text(name, sizeof(name), part->set->tensor[i].name);
		r = text_list_add(&plan->differences, "%s is unexpected", name);
	}
	if (r < 0)
		return sana_error_set(error, r, "import.memory", "No memory to compare tensors.");
	return plan->differences.count ? differences_fail(&comparison, error) : 0;
}
