/* sana-bench --plan: memory and cost, as a table or JSON. */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <errno.h>

static const double mega = 1e6, mebi = 1048576;

int bench_print_json(json_t *object)
{
	int r = object ? json_dumpf(object, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) : -1;

	if (r == 0)
		r = putchar('\n') == EOF || fflush(stdout) == EOF;
	json_decref(object);
	return r ? -EIO : 0;
}

static void state_print(const struct sana_plan *plan, bool bf16)
{
	(void)printf(
		"State of one stream as the published model keeps it (%s), first chunk %d latents:\n"
		"  %-48s %-18s %4s %14s %15s %9s %9s\n",
		bf16 ? "BF16" : "F32", plan->first_chunk_latents, "item", "shape", "n",
		"bytes each", "bytes", "MB", "MiB");
	for (int i = 0; i < plan->state_lines; i++) {
		const struct sana_state_line *l = &plan->state[i];

		if (l->count)
			(void)printf("  %-48s %-18s %4d %14zu %15zu %9.2f %9.1f\n", l->name,
				     l->shape, l->count, l->bytes_each, l->bytes, l->bytes / mega,
				     l->bytes / mebi);
		else
			(void)printf("  %-48s %-18s %4s %14s %15zu %9.2f %9.1f\n", l->name, "", "",
				     "", l->bytes, l->bytes / mega, l->bytes / mebi);
	}
}

static void blocks_print(const struct sana_plan *plan)
{
	(void)printf(
		"\nBlocks that the back end \"%s\" takes (stages run one at a time, so their scratch "
		"lines share one region and add up to more than the block):\n  %-8s %-48s %6s %15s %9s\n",
		plan->backend, "owner", "item", "pieces", "bytes", "MiB");
	for (int i = 0; i < plan->lines; i++)
		(void)printf("  %-8s %-48s %6d %15zu %9.1f\n", plan->line[i].owner,
			     plan->line[i].name, plan->line[i].count, plan->line[i].bytes,
			     plan->line[i].bytes / mebi);
	(void)printf("  %-8s %-48s %6s %15zu %9.1f\n", "model", "block", "", plan->model_bytes,
		     plan->model_bytes / mebi);
	(void)printf("  %-8s %-48s %6s %15zu %9.1f\n", "stream", "block (whole arena)", "",
		     plan->stream_bytes, plan->stream_bytes / mebi);
	(void)printf("  %-8s %-48s %6s %15zu %9.1f\n", "both", "taken", "",
		     plan->model_bytes + plan->stream_bytes,
		     (plan->model_bytes + plan->stream_bytes) / mebi);
	(void)printf("  %-8s %-48s %6s %15zu %9.1f\n", "model", "weights left in their files", "",
		     plan->mapped_bytes, plan->mapped_bytes / mebi);
	(void)printf("  %-8s %-48s %6s %15zu %9.1f\n", "machine", "available to the blocks", "",
		     plan->available_bytes, plan->available_bytes / mebi);
}

static void cost_print(const struct sana_plan *plan)
{
	const double tera = 1e12, passes = plan->passes * plan->dit_pass_flops;

	(void)printf(
		"\nCost of one chunk of %d latents, window full, %d text rows (2 per "
		"multiply-add):\n"
		"  encode %.3f TFLOP, DiT %d x %.3f TFLOP, decode %.3f TFLOP, in all %.3f TFLOP\n",
		plan->chunk_latents, plan->text_rows, plan->encode_flops / tera, plan->passes,
		plan->dit_pass_flops / tera, plan->decode_flops / tera,
		(plan->encode_flops + passes + plan->decode_flops) / tera);
}

static void ops_print(const struct sana_plan *plan)
{
	enum sana_stage stage = SANA_STAGE_NONE;

	(void)printf("\nOps of one chunk (encode, decode) and of one pass (denoise, cache), window "
		     "full:\n  %-8s %-20s %6s %14s %12s %12s\n",
		     "stage", "op", "calls", "GFLOP a call", "MB a call", "FLOP/byte");
	for (int i = 0; i < plan->op_lines; i++) {
		const struct sana_op_line *l = &plan->op[i];

		(void)printf("  %-8s %-20s %6d %14.3f %12.3f %12.1f\n",
			     l->stage == stage ? "" : sana_stage_name(l->stage), l->op, l->calls,
			     l->flops / 1e9, l->bytes / mega, l->flops / l->bytes);
		stage = l->stage;
	}
}

static json_t *ops_json(const struct sana_plan *plan)
{
	json_t *list = json_array();

	for (int i = 0; list && i < plan->op_lines; i++) {
		const struct sana_op_line *l = &plan->op[i];

		if (json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:f, s:f}", "stage",
							  sana_stage_name(l->stage), "op", l->op,
							  "calls", l->calls, "flops", l->flops,
							  "bytes", l->bytes)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *state_json(const struct sana_plan *plan)
{
	json_t *list = json_array();

	for (int i = 0; list && i < plan->state_lines; i++) {
		const struct sana_state_line *l = &plan->state[i];

		if (json_array_append_new(list,
					  json_pack("{s:s, s:s, s:i, s:I, s:I}", "name", l->name,
						    "shape", l->shape, "count", l->count,
						    "bytes_each", (json_int_t)l->bytes_each,
						    "bytes", (json_int_t)l->bytes)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *blocks_json(const struct sana_plan *plan)
{
	json_t *list = json_array();

	for (int i = 0; list && i < plan->lines; i++) {
		const struct sana_plan_line *l = &plan->line[i];

		if (json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:I}", "owner", l->owner,
							  "name", l->name, "pieces", l->count,
							  "bytes", (json_int_t)l->bytes)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int plan_json(const struct sana_plan *plan, bool bf16, const char *estimate)
{
	json_t *object = json_pack(
		"{s:s, s:s, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:f, "
		"s:i}",
		"model", plan->name, "backend", plan->backend, "width", plan->width, "height",
		plan->height, "first_chunk_latents", plan->first_chunk_latents, "chunk_latents",
		plan->chunk_latents, "storage", bf16 ? "bf16" : "f32", "state", state_json(plan),
		"blocks", blocks_json(plan), "ops", ops_json(plan), "model_bytes",
		(json_int_t)plan->model_bytes, "stream_bytes", (json_int_t)plan->stream_bytes,
		"mapped_bytes", (json_int_t)plan->mapped_bytes, "available_bytes",
		(json_int_t)plan->available_bytes, "fits", plan->fits, "dit_pass_flops",
		plan->dit_pass_flops, "encode_flops", plan->encode_flops, "decode_flops",
		plan->decode_flops, "passes", plan->passes);

	if (object && estimate)
		(void)bench_estimate_plan(estimate, plan, object);
	return bench_print_json(object);
}

int bench_plan(const struct bench *bench, struct sana_error *error)
{
	_cleanup_(freep) struct sana_plan *plan = calloc(1, sizeof(*plan));
	int r;

	if (!plan)
		return -ENOMEM;
	r = sana_plan(&bench->model, &bench->stream, bench->state_bf16, plan, error);
	if (r < 0)
		return r;
	if (bench->json) {
		r = plan_json(plan, bench->state_bf16, bench->estimate);
	} else {
		(void)printf("%s at %dx%d\n\n", plan->name, plan->width, plan->height);
		state_print(plan, bench->state_bf16);
		blocks_print(plan);
		cost_print(plan);
		if (bench->ops)
			ops_print(plan);
		if (bench->estimate)
			(void)bench_estimate_plan(bench->estimate, plan, NULL);
		r = fflush(stdout) == EOF ? -EIO : 0;
	}
	if (r < 0 || plan->fits)
		return r;
	return sana_error_set(error, -ENOSPC, "memory",
			      "The plan needs %zu bytes and this machine has %zu for it.",
			      plan->model_bytes + plan->stream_bytes, plan->available_bytes);
}
