/*
 * sana-bench --estimate NAME: what a chunk would take on a GPU that is not here, from counts and a table of rates.
 *
 *   time of an op = calls × (max(FLOP / (matrix rate × mma), bytes / (copy rate × copy)) + fixed)
 *
 * `mma` and `copy` are efficiencies of an op's kernels against the two ceilings of a GPU, `fixed` what a call costs
 * whatever its size: launches, the last wave of tiles, the first loads. They were fitted to one run on a GPU that was
 * there (below). The same model applied to the GPU of this run, with its ceilings, must give back every class of ops
 * within 15 %; it does not know what this run measured, so it can fail, and says so.
 *
 * A target gets no better efficiency than was measured for the same kernels: of no op a larger share of its floor's
 * rate than the table's GPU reached, bandwidth terms above 1 (a cache as large as the tensors) counting as 1, and where this run measured a class slower than the
 * table says, slower by as much.
 */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <errno.h>
#include <math.h>

/* Classes in which predicted and measured times are compared. */
enum class { CONVOLUTION, LINEAR, ATTENTION, DELTA_RULE, REST, CLASS_COUNT };

static const char *const class_names[CLASS_COUNT] = {
	[CONVOLUTION] = "conv3d",     [LINEAR] = "linear, temporal",
	[ATTENTION] = "attention",    [DELTA_RULE] = "gdn and its gates",
	[REST] = "memory-bound rest",
};

/* Ceilings of the run that the tables are from. */
static const double reference_tensor = 598e12, reference_copy = 4.09e12;

static const double within = 0.15; /* of the measured time of a class */

struct rate {
	const char *op; /* NULL: every other op */
	enum class class;
	double mma, copy, fixed_us; /* 0: the term does not count */
};

/*
 * Kernels of every chip (the targets run these). Fitted to `sana-bench --shape 2b --size 1280x704 --backend
 * cuda-portable --profile` on an H200 (132 multiprocessors, driver 580, CUDA 13.0): mma.sync 598 TFLOP/s, copy
 * 4.1 TB/s.
 */
static const struct rate portable_rates[] = {
	{ "conv3d", CONVOLUTION, 0.845, 1, 40 }, { "linear", LINEAR, 0.885, 1, 8 },
	{ "temporal_conv", LINEAR, 0.93, 1, 8 }, { "attention", ATTENTION, 0.69, 1, 25 },
	{ "gdn", DELTA_RULE, 0.175, 0, 4 },	 { "gdn_gates", DELTA_RULE, 0, 0.28, 5 },
	{ "depthwise_glu", REST, 0, 0.65, 3 },	 { "layer_norm_modulate", REST, 0, 0.72, 3 },
	{ "qk_norm_rope", REST, 0, 0.635, 3 },	 { "patchify", REST, 0, 0.105, 3 },
	{ "unpatchify", REST, 0, 0.27, 3 },	 { NULL, REST, 0, 0.52, 5 },
};

/* Kernels of sm_90a and what they leave to the others; the same run with --backend cuda, mma.sync 598 TFLOP/s; wgmma
 * is not bound by that rate, so that its efficiencies may be above 1. */
static const struct rate chip_rates[] = {
	{ "conv3d", CONVOLUTION, 1.185, 1, 40 },  { "linear", LINEAR, 1.23, 1, 8 },
	{ "temporal_conv", LINEAR, 1.32, 1, 10 }, { "attention", ATTENTION, 0.97, 1, 25 },
	{ "gdn", DELTA_RULE, 0.17, 0, 3 },	  { "gdn_gates", DELTA_RULE, 0, 0.38, 8 },
	{ "depthwise_glu", REST, 0, 0.6, 3 },	  { "layer_norm_modulate", REST, 0, 0.68, 3 },
	{ "qk_norm_rope", REST, 0, 0.61, 3 },	  { "patchify", REST, 0, 0.105, 3 },
	{ "unpatchify", REST, 0, 0.27, 3 },	  { NULL, REST, 0, 0.66, 5 },
};

/*
 * Dense BF16 with F32 sums: operations per clock and multiprocessor × multiprocessors × rated clock.
 * Memory: the rated bandwidth times the share of it that large copies reach on such memory.
 */
static const struct target {
	const char *name, *description;
	double tensor_flops, copy_bytes;
} targets[] = {
	{ "rtx5090", "GeForce RTX 5090: 512 x 170 x 2.407 GHz, 1792 GB/s x 0.9",
	  512.0 * 170 * 2.407e9, 0.9 * 1792e9 },
	/* If the rate per clock is that of GeForce; twice as fast where it is not. */
	{ "gb10", "GB10: 512 x 48 x 2.5 GHz (assumed halved), 273 GB/s x 0.85", 512.0 * 48 * 2.5e9,
	  0.85 * 273e9 },
};

static const struct target *target_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		if (strcmp(targets[i].name, name) == 0)
			return &targets[i];
	return NULL;
}

bool bench_estimate_knows(const char *name)
{
	return target_find(name) != NULL;
}

/* Both tables end with the entry of every other op. */
static const struct rate *rate_find(const struct rate *rates, const char *op)
{
	while (rates->op && strcmp(rates->op, op) != 0)
		rates++;
	return rates;
}

/* One call of an op on a GPU with these ceilings; copy efficiencies count up to `most_copy`. */
static double call_seconds(const struct rate *rate, double tensor, double copy, double most_copy,
			   const struct sana_profile_line *line)
{
	const double by_flops = rate->mma > 0 ? line->flops / (tensor * rate->mma) : 0;
	const double by_bytes =
		rate->copy > 0 ? line->bytes / (copy * MIN_OF(rate->copy, most_copy)) : 0;

	return MAX_OF(by_flops, by_bytes) + 1e-6 * rate->fixed_us;
}

/*
 * The same on a target, with the efficiency (floor over time) that the table's own GPU had for this op as the most:
 * what a call costs whatever its size may not hide behind a longer floor.
 */
static double target_seconds(const struct rate *rate, const struct target *t,
			     const struct sana_profile_line *line)
{
	const double floor = MAX_OF(line->flops / reference_tensor, line->bytes / reference_copy);
	const double time = call_seconds(rate, reference_tensor, reference_copy, INFINITY, line);
	const double efficiency = MIN_OF(floor / time, 1.0);
	const double there = MAX_OF(line->flops / t->tensor_flops, line->bytes / t->copy_bytes);
	const double model = call_seconds(rate, t->tensor_flops, t->copy_bytes, 1, line);

	return efficiency > 0 ? MAX_OF(model, there / efficiency) : model;
}

struct sums {
	double measured[CLASS_COUNT], predicted[CLASS_COUNT],
		there[CLASS_COUNT]; /* seconds a chunk */
};

static void sums_make(const struct bench_estimate_input *in, const struct target *t,
		      struct sums *ret)
{
	const struct rate *own = in->portable ? portable_rates : chip_rates;

	*ret = (struct sums){ 0 };
	for (int i = 0; i < in->count; i++) {
		const struct sana_profile_line *line = &in->lines[i];
		const struct rate *there = rate_find(portable_rates, line->op);
		const double calls = (double)line->calls / in->chunks;

		ret->there[there->class] += calls * target_seconds(there, t, line);
		if (!in->here)
			continue;
		ret->measured[there->class] += 1e-9 * (double)line->ns / in->chunks;
		ret->predicted[there->class] +=
			calls * call_seconds(rate_find(own, line->op), in->here->tensor_flops,
					     in->here->copy_bytes, INFINITY, line);
	}
	/* No class better there than the same kernels were here. */
	for (int c = 0; in->here && in->portable && c < CLASS_COUNT; c++)
		if (ret->measured[c] > ret->predicted[c] && ret->predicted[c] > 0)
			ret->there[c] *= ret->measured[c] / ret->predicted[c];
}

static double difference(const struct sums *s, int c)
{
	return s->measured[c] > 0 ? s->predicted[c] / s->measured[c] - 1 : 0;
}

static void estimate_print(const struct bench_estimate_input *in, const struct target *t,
			   const struct sums *s, double total)
{
	(void)printf("\nEstimate, not a measurement, for %s;\n%s.\n", t->description,
		     in->here ? "the same model on this GPU first, in milliseconds a chunk" :
				"from the counts of a chunk alone, window full");
	if (in->here)
		(void)printf("  %-20s %12s %12s %12s %12s\n", "class", "measured", "predicted",
			     "difference", "there");
	else
		(void)printf("  %-20s %12s\n", "class", "there, ms");
	for (int c = 0; c < CLASS_COUNT; c++) {
		if (in->here)
			(void)printf("  %-20s %12.2f %12.2f %+10.1f %% %12.2f%s\n", class_names[c],
				     1e3 * s->measured[c], 1e3 * s->predicted[c],
				     100 * difference(s, c), 1e3 * s->there[c],
				     fabs(difference(s, c)) > within ? "  not within 15 %" : "");
		else
			(void)printf("  %-20s %12.2f\n", class_names[c], 1e3 * s->there[c]);
	}
	(void)printf("  a chunk of %d frames there %.1f ms: %.1f frames a second, copies of the "
		     "host not counted\n",
		     in->frames, 1e3 * total, in->frames / total);
}

static int estimate_json(const struct bench_estimate_input *in, const struct target *t,
			 const struct sums *s, double total, json_t *json)
{
	json_t *classes = json_array();

	for (int c = 0; c < CLASS_COUNT; c++)
		(void)json_array_append_new(
			classes,
			json_pack("{s:s, s:o, s:o, s:o, s:f}", "class", class_names[c],
				  "measured_ms",
				  in->here ? json_real(1e3 * s->measured[c]) : json_null(),
				  "predicted_ms",
				  in->here ? json_real(1e3 * s->predicted[c]) : json_null(),
				  "within_15_percent",
				  in->here ? json_boolean(fabs(difference(s, c)) <= within) :
					     json_null(),
				  "there_ms", 1e3 * s->there[c]));
	return json_object_set_new(json, "estimate",
				   json_pack("{s:s, s:s, s:o, s:f, s:f}", "target", t->name,
					     "rates", t->description, "classes", classes,
					     "chunk_ms", 1e3 * total, "fps", in->frames / total)) <
			       0 ?
		       -ENOMEM :
		       0;
}

int bench_estimate(const char *name, const struct bench_estimate_input *in, json_t *json)
{
	const struct target *t = target_find(name);
	struct sums s;
	double total = 0;

	if (!t || (in->here && in->here->tensor_flops <= 0))
		return -ENOTSUP;
	sums_make(in, t, &s);
	for (int c = 0; c < CLASS_COUNT; c++)
		total += s.there[c];
	if (json)
		return estimate_json(in, t, &s, total, json);
	estimate_print(in, t, &s, total);
	return 0;
}

int bench_estimate_plan(const char *name, const struct sana_plan *plan, json_t *json)
{
	struct bench_estimate_input in = { .portable = true, .chunks = 1 };
	struct sana_profile_line *lines = calloc(SANA_OP_LINES, sizeof(*lines));
	/* The targets hold BF16 where the CPU, whose plan this may be, holds F32. */
	const double bytes = strcmp(plan->backend, "cpu") == 0 ? 0.5 : 1;
	int r;

	if (!lines)
		return -ENOMEM;
	for (int i = 0; i < plan->op_lines; i++) {
		const struct sana_op_line *op = &plan->op[i];

		lines[i].stage = op->stage;
		(void)snprintf(lines[i].op, sizeof(lines[i].op), "%s", op->op);
		lines[i].flops = op->flops;
		lines[i].bytes = bytes * op->bytes;
		/* Denoising lines are of one pass; the last pass writes the caches. */
		lines[i].calls =
			op->calls * (op->stage == SANA_STAGE_DENOISE ? plan->passes - 1 : 1);
	}
	in.lines = lines;
	in.count = plan->op_lines;
	in.frames = plan->chunk_frames;
	r = in.count ? bench_estimate(name, &in, json) : -ENOTSUP;
	free(lines);
	return r;
}
