/* manifest.json: where a model came from, what it is now, and on which terms. */
#include "tools/import/run.h"

#include <jansson.h>
#include <time.h>

/*
 * As far as the publishers' documents tell; no advice. For a part of other sizes than the published
 * ones nothing is known.
 */
static const char *const licences[PART_COUNT] = {
	[PART_DIT] =
		"SANA-Streaming weights: no licence was stated where they are published when this "
		"was written; earlier SANA weights carry NVIDIA's non-commercial terms. Assume "
		"non-commercial use until the model card says otherwise.",
	[PART_VAE] =
		"LTX-2 Community License Agreement (Lightricks, 5 January 2026), which also covers "
		"derivatives such as the causal VAE: companies with 10 million USD of yearly "
		"revenue or more need a paid licence for commercial use.",
	[PART_TEXT] = "Gemma Terms of Use and Prohibited Use Policy (Google); they go along with "
		      "every copy.",
};

static const char unknown_licence[] = "Not known: not a model of the published sizes. Its origin "
				      "decides.";

/* Paths need not be UTF-8, JSON must be. */
static json_t *path_json(const char *path)
{
	json_t *value = json_string(path);
	char *plain = value ? NULL : strdup(path);

	for (char *c = plain; c && *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	if (plain)
		value = json_string(plain);
	free(plain);
	return value;
}

static json_t *sources_json(const struct source_digest *sources, size_t count, enum part_kind kind)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		if (sources[i].kind == kind)
			(void)json_array_append_new(list,
						    json_pack("{s:o, s:I, s:s}", "path",
							      path_json(sources[i].path), "bytes",
							      (json_int_t)sources[i].bytes,
							      "sha256", sources[i].sha256));
	return list;
}

static json_t *results_json(const struct result_digest *results, size_t count, enum part_kind kind)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		if (results[i].kind == kind)
			(void)json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "path",
								    results[i].path, "bytes",
								    (json_int_t)results[i].bytes,
								    "sha256", results[i].sha256));
	return list;
}

/* {"BF16": 588, …} */
static json_t *precision_json(const struct set *set)
{
	json_t *counts = json_object();

	for (size_t i = 0; i < set->count; i++) {
		const char *name = safetensors_dtype_name(set->tensor[i].dtype);
		json_int_t n = json_integer_value(json_object_get(counts, name));

		(void)json_object_set_new(counts, name, json_integer(n + 1));
	}
	return counts;
}

static json_t *part_json(const struct part *part, const struct source_digest *sources,
			 size_t source_count, const struct result_digest *results,
			 size_t result_count)
{
	json_t *object = json_pack("{s:s, s:o, s:o, s:I, s:I, s:o, s:s, s:s}", "looks_like",
				   part->looks, "sources",
				   sources_json(sources, source_count, part->kind), "results",
				   results_json(results, result_count, part->kind), "tensors",
				   (json_int_t)part->out.count, "parameters",
				   (json_int_t)set_parameters(part->set), "precision",
				   precision_json(part->set), "source_format", part->set->format,
				   "nesting", part->set->nesting);

	if (part->kind == PART_VAE)
		(void)json_object_set_new(object, "decoder_origin",
					  json_string(part->converted ? "converted" : "published"));
	if (part->kind != PART_NONE)
		(void)json_object_set_new(object, "config",
					  json_string(part->config.source ? "from the source" :
									    "built in"));
	if (part->kind != PART_NONE)
		(void)json_object_set_new(object, "licence",
					  json_string(part->published ? licences[part->kind] :
									unknown_licence));
	return object;
}

static bool is_complete(const struct plan *plan)
{
	for (int kind = 0; kind < PART_COUNT; kind++)
		if (!plan->part[kind].set)
			return false;
	return true;
}

char *manifest_make(const struct plan *plan, const struct source_digest *sources,
		    size_t source_count, const struct result_digest *results, size_t result_count)
{
	json_t *object =
		json_pack("{s:i, s:s}", "manifest", 1, "made_by", "sana-import " SANA_VERSION);
	json_t *parts = json_object();
	time_t now = time(NULL);
	struct tm broken;
	char text[32], *whole;

	if (gmtime_r(&now, &broken) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &broken))
		(void)json_object_set_new(object, "made_at", json_string(text));
	if (plan->raw)
		(void)json_object_set_new(object, "raw", json_true());
	else
		(void)json_object_set_new(object, "complete", json_boolean(is_complete(plan)));
	if (!plan->raw && plan->part[PART_VAE].set)
		(void)json_object_set_new(
			object, "decoder_origin",
			json_string(plan->part[PART_VAE].converted ? "converted" : "published"));
	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct part *part = &plan->part[kind];

		if (part->set)
			(void)json_object_set_new(parts, plan->raw ? "raw" : part_name(part->kind),
						  part_json(part, sources, source_count, results,
							    result_count));
	}
	(void)json_object_set_new(object, "parts", parts);
	(void)json_object_set_new(object, "other_sources",
				  sources_json(sources, source_count, PART_COUNT));
	(void)json_object_set_new(object, "other_results",
				  results_json(results, result_count, PART_COUNT));
	whole = json_dumps(object, JSON_INDENT(1));
	json_decref(object);
	return whole;
}
