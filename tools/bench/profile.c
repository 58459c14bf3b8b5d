/* sana-bench --profile: where a chunk's time goes, op by op, beside what each op must do at least. */
#include "base/util.h"
#include "tools/bench/bench.h"

/* The floor of a call by this run's ceilings: its arithmetic or its traffic, whichever takes longer. */
static double floor_ns(const struct bench_peak *peak, const struct sana_profile_line *line)
{
	const double arithmetic = MAX_OF(peak->gemm_flops, peak->tensor_flops);
	const double by_flops = arithmetic > 0 ? line->flops / arithmetic : 0;
	const double by_bytes = peak->copy_bytes > 0 ? line->bytes / peak->copy_bytes : 0;

	return 1e9 * MAX_OF(by_flops, by_bytes);
}

static void line_print(const struct bench_peak *peak, const struct sana_profile_line *line,
		       int chunks)
{
	const double seconds = 1e-9 * (double)line->ns / line->calls;

	(void)printf("  %-20s %6.1f %9.3f %9.3f %9.1f %6.0f%%  %s\n", line->op,
		     (double)line->calls / chunks, 1e-6 * (double)line->ns / chunks,
		     1e-12 * line->flops / seconds, 1e-9 * line->bytes / seconds,
		     1e-7 * floor_ns(peak, line) / seconds, line->kernels);
}

static json_t *line_json(const struct bench_peak *peak, const struct sana_profile_line *line,
			 int chunks)
{
	return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "stage",
			 sana_stage_name(line->stage), "op", line->op, "kernels", line->kernels,
			 "calls", (double)line->calls / chunks, "ms",
			 1e-6 * (double)line->ns / chunks, "flops", line->flops, "bytes",
			 line->bytes, "floor_us", 1e-3 * floor_ns(peak, line));
}

static void stage_print(const struct bench_peak *peak, const struct sana_profile_line *lines,
			int count, int chunks, enum sana_stage stage)
{
	double total = 0, floor = 0;
	int n = 0;

	for (int i = 0; i < count; i++) {
		if (lines[i].stage != stage)
			continue;
		total += (double)lines[i].ns;
		floor += lines[i].calls * floor_ns(peak, &lines[i]);
		n++;
	}
	if (!n)
		return;
	(void)printf("\n%s: %.3f ms a chunk in ops, floor %.3f ms\n"
		     "  %-20s %6s %9s %9s %9s %7s  %s\n",
		     sana_stage_name(stage), 1e-6 * total / chunks, 1e-6 * floor / chunks, "op",
		     "calls", "ms", "TFLOP/s", "GB/s", "floor", "kernels");
	for (int i = 0; i < count; i++)
		if (lines[i].stage == stage)
			line_print(peak, &lines[i], chunks);
}

int bench_profile(const struct bench_peak *peak, const struct sana_profile_line *lines, int count,
		  int chunks, json_t *json)
{
	if (json) {
		json_t *array = json_array();

		for (int i = 0; i < count; i++)
			(void)json_array_append_new(array, line_json(peak, &lines[i], chunks));
		return json_object_set_new(json, "ops", array) < 0 ? -1 : 0;
	}
	(void)printf(
		"\nOps of %d chunks, each timed by itself; calls and milliseconds are of one chunk, "
		"\"floor\" is\nthe share of what this run's ceilings allow (arithmetic or "
		"traffic, whichever is longer).\n",
		chunks);
	for (int stage = 0; stage < SANA_STAGE_COUNT; stage++)
		stage_print(peak, lines, count, chunks, (enum sana_stage)stage);
	return 0;
}
