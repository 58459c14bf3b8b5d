/*
 * sana-bench --estimate NAME: what the chunk just measured would take on a GPU that is not here.
 *
 * Every op keeps the efficiency measured for it in this run: its floor here (arithmetic over the matrix
 * units' measured rate or traffic over the measured copy, whichever is longer) over its time here. On the
 * target it takes the target's floor over that efficiency, and never less than a launch. So the same rule
 * applied to this GPU gives back what was measured, and no op is taken to be better there than here. The
 * kernels must be those that run there: measure with --backend cuda-portable.
 */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <errno.h>

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

/* A kernel in a graph: start, one wave over an empty machine, end. */
static const double launch_seconds = 2e-6;

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

static double floor_seconds(double tensor, double copy, const struct sana_profile_line *line)
{
	return MAX_OF(line->flops / tensor, line->bytes / copy);
}

/* Seconds of all calls of a line. */
static double line_seconds(const struct bench_peak *here, const struct target *t,
			   const struct sana_profile_line *line)
{
	const double measured = 1e-9 * (double)line->ns / line->calls;
	const double floor_here = floor_seconds(here->tensor_flops, here->copy_bytes, line);
	const double efficiency = measured > 0 ? MIN_OF(floor_here / measured, 1.0) : 1.0;
	const double there = floor_seconds(t->tensor_flops, t->copy_bytes, line);

	/* Without a floor worth the name an op is launches: as long there as here. */
	if (floor_here < launch_seconds / 10)
		return line->calls * measured;
	return line->calls * MAX_OF(there / efficiency, launch_seconds);
}

static double stage_seconds(const struct bench_peak *here, const struct target *t,
			    const struct sana_profile_line *lines, int count, enum sana_stage stage)
{
	double sum = 0;

	for (int i = 0; i < count; i++)
		if (lines[i].stage == stage)
			sum += line_seconds(here, t, &lines[i]);
	return sum;
}

int bench_estimate(const char *name, const struct bench_peak *here,
		   const struct sana_profile_line *lines, int count, int chunks, int frames)
{
	static const enum sana_stage stages[] = { SANA_STAGE_ENCODE, SANA_STAGE_DENOISE,
						  SANA_STAGE_CACHE, SANA_STAGE_DECODE };
	const struct target *there = target_find(name);
	struct target self = { "here", "this GPU by the same rule", here->tensor_flops,
			       here->copy_bytes };
	double total = 0;

	if (!there || here->tensor_flops <= 0)
		return -ENOTSUP;
	(void)printf("\nEstimate for %s; efficiencies are those measured above.\n"
		     "  %-10s %14s %14s %14s\n",
		     there->description, "stage", "measured ms", "by the rule", "there ms");
	for (size_t s = 0; s < ARRAY_SIZE(stages); s++) {
		const double estimate =
			stage_seconds(here, there, lines, count, stages[s]) / chunks;
		double measured = 0;

		for (int i = 0; i < count; i++)
			if (lines[i].stage == stages[s])
				measured += 1e-9 * (double)lines[i].ns / chunks;
		total += estimate;
		(void)printf("  %-10s %14.2f %14.2f %14.2f\n", sana_stage_name(stages[s]),
			     1e3 * measured,
			     1e3 * stage_seconds(here, &self, lines, count, stages[s]) / chunks,
			     1e3 * estimate);
	}
	(void)printf("  a chunk of %d frames there %.1f ms: %.1f frames a second\n", frames,
		     1e3 * total, frames / total);
	return 0;
}
