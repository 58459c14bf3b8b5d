/*
 * Manifests of the text kind: the text encoder over the ids of the file, hidden states of every layer.
 *
 * The file has sides ("left", "right": where the padding is), each with SIDE.ids and SIDE.mask. A side
 * padded on the right is run a second time on its real tokens alone, which is what the engine does.
 */
#include "tests/golden/golden.h"

#include <errno.h>

#include "engine/model_keys.h"
#include "engine/text_encoder.h"

struct text_run {
	struct text_config config;
	struct text_weights weights;
	struct text_encoder encoder;
};

struct text_side {
	struct golden *g;
	char name[GOLDEN_NAME_BYTES]; /* "left" */
	const int32_t *ids;
	uint8_t *mask; /* [tokens]; rows that are compared */
	int tokens;
	int real; /* leading valid tokens when no other is valid, else 0 */
	const char *note;
	float *values; /* [tokens][hidden] */
	int hidden;
	int last; /* index of the last hidden state */
	int status;
};

static int text_walk(const void *config, model_key_visit visit, void *context)
{
	return text_keys_visit(config, visit, context);
}

static int config_read(struct golden *g, struct text_config *ret)
{
	_cleanup_(freep) char *text = json_dumps(g->config, 0);

	if (!text)
		return golden_fail(g, "its config cannot be written as text again.");
	return text_config_parse(text, strlen(text), g->path, ret, g->error);
}

static int text_layout(struct golden *g, void *context, struct loader *loader,
		       struct op_context *planning)
{
	struct text_run *run = context;
	const void *hidden;

	text_weights_load(loader, &run->config, &run->weights);
	text_encoder_layout(&run->encoder, &g->backend, loader->arena);
	if (!planning)
		return 0;
	return text_encoder_run(&run->encoder, planning, NULL, run->encoder.mask,
				run->encoder.max_tokens, &hidden);
}

/* ---------------------------------------------------------------------------------------- sides */

static const char ids_suffix[] = ".ids";

/* "left" for "left.ids"; false for a tensor that is no list of ids. */
static bool side_name(const struct golden_tensor *tensor, char to[GOLDEN_NAME_BYTES])
{
	const size_t length = strlen(tensor->name), suffix = strlen(ids_suffix);

	if (length <= suffix || strcmp(tensor->name + length - suffix, ids_suffix) != 0)
		return false;
	memcpy(to, tensor->name, length - suffix);
	to[length - suffix] = '\0';
	return true;
}

static void side_finish(struct text_side *side)
{
	free(side->mask);
	free(side->values);
	side->mask = NULL;
	side->values = NULL;
}

/* Without a mask every token is valid. */
static int side_mask(struct golden *g, struct text_side *side)
{
	char name[GOLDEN_NAME_BYTES + 8];
	struct golden_tensor *mask;
	int valid = 0;

	(void)snprintf(name, sizeof(name), "%s.mask", side->name);
	mask = golden_find(g, name);
	if (mask && (!mask->is_integer || mask->count != (size_t)side->tokens))
		return golden_fail(g, "%s is no list of %d integers.", name, side->tokens);
	if (mask)
		mask->produced = true;
	for (int i = 0; i < side->tokens; i++) {
		side->mask[i] = !mask || ((const int32_t *)mask->data)[i] != 0;
		valid += side->mask[i];
		if (side->mask[i] && valid == i + 1)
			side->real = valid;
	}
	if (valid == 0)
		return golden_fail(g, "%s has no valid token.", name);
	if (side->real != valid || valid == side->tokens)
		side->real = 0;
	return 0;
}

static int side_init(struct golden *g, const struct text_config *config, struct golden_tensor *ids,
		     struct text_side *side)
{
	if (!ids->is_integer || ids->count < 1 || ids->count > MODEL_MAX_TOKENS)
		return golden_fail(g, "%s is no list of 1 to %d integers.", ids->name,
				   MODEL_MAX_TOKENS);
	ids->produced = true;
	side->g = g;
	side->ids = ids->data;
	side->tokens = (int)ids->count;
	side->hidden = config->hidden_size;
	side->last = config->layers;
	side->mask = malloc(ids->count);
	side->values = calloc(ids->count * (size_t)side->hidden, sizeof(*side->values));
	if (!side->mask || !side->values)
		return golden_fail(g, "no memory for the hidden states.");
	return side_mask(g, side);
}

/* A row for hiddenI, and for the last one also "last": the same tensor under a second name. */
static void side_hidden(void *context, int index, const void *data, int tokens)
{
	struct text_side *side = context;
	char name[GOLDEN_NAME_BYTES + 24];
	int r;

	r = golden_read_act(side->g, data, (size_t)tokens * side->hidden, side->values);
	if (r < 0) {
		side->status = r;
		return;
	}
	(void)snprintf(name, sizeof(name), "%s.hidden%d", side->name, index);
	golden_compare_rows(side->g, name, side->note, side->values, side->mask, side->tokens,
			    side->hidden);
	if (index != side->last)
		return;
	(void)snprintf(name, sizeof(name), "%s.last", side->name);
	golden_compare_rows(side->g, name, side->note, side->values, side->mask, side->tokens,
			    side->hidden);
}

static int side_run(struct text_run *run, struct text_side *side, const uint8_t *mask, int tokens,
		    const char *note)
{
	const struct text_tap tap = { .hidden = side_hidden, .context = side };
	const void *hidden;
	int r;

	side->note = note;
	run->encoder.tap = &tap;
	r = text_encoder_run(&run->encoder, &side->g->op, side->ids, mask, tokens, &hidden);
	run->encoder.tap = NULL;
	if (r < 0)
		return golden_fail(side->g, "the text encoder fails on %s.ids: %s.", side->name,
				   strerror(-r));
	return side->status;
}

static int sides_run(struct golden *g, struct text_run *run)
{
	for (size_t i = 0; i < g->expected_count; i++) {
		_cleanup_(side_finish) struct text_side side = { 0 };
		int r;

		if (!side_name(&g->expected[i], side.name))
			continue;
		r = side_init(g, &run->config, &g->expected[i], &side);
		if (r < 0)
			return r;
		r = side_run(run, &side, side.mask, side.tokens, NULL);
		if (r < 0)
			return r;
		if (side.real) {
			r = side_run(run, &side, NULL, side.real, "real tokens only");
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* Most tokens of any side; 0 without one. */
static int tokens_most(const struct golden *g)
{
	char name[GOLDEN_NAME_BYTES];
	size_t most = 0;

	for (size_t i = 0; i < g->expected_count; i++)
		if (side_name(&g->expected[i], name))
			most = MAX_OF(most, g->expected[i].count);
	return most <= MODEL_MAX_TOKENS ? (int)most : 0;
}

int golden_text(struct golden *g)
{
	_cleanup_(freep) struct text_run *run = calloc(1, sizeof(*run));
	int r;

	if (!run)
		return golden_fail(g, "no memory for the run.");
	r = config_read(g, &run->config);
	if (r < 0)
		return r;
	r = weights_check(g->weights, g->path, text_walk, &run->config, g->error);
	if (r < 0)
		return r;
	run->encoder = (struct text_encoder){
		.config = &run->config,
		.weights = &run->weights,
		.softcap = run->config.attn_logit_softcapping > 0,
		.max_tokens = tokens_most(g),
	};
	if (run->encoder.max_tokens == 0)
		return golden_fail(g, "the file beside it has no usable SIDE.ids (1 to %d tokens).",
				   MODEL_MAX_TOKENS);
	r = golden_place(g, text_layout, run);
	if (r < 0)
		return r;
	r = text_encoder_prepare(&run->encoder, &g->op);
	if (r < 0)
		r = golden_fail(g, "the rotation table fails: %s.", strerror(-r));
	else
		r = sides_run(g, run);
	text_encoder_finish(&run->encoder, &g->backend);
	return r;
}
