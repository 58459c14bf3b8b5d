/* Which kernels make the matrix products, and what was measured to choose them. */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <errno.h>

int bench_tuning_take(struct sana_stream *stream, struct sana_tuning **ret)
{
	struct sana_tuning *tuning = calloc(1, sizeof(*tuning));

	if (!tuning)
		return -ENOMEM;
	sana_stream_tuning(stream, tuning);
	if (tuning->text[0])
		(void)fprintf(stderr, "sana-bench: %s\n", tuning->text);
	if (tuning->note[0])
		(void)fprintf(stderr, "sana-bench: %s\n", tuning->note);
	*ret = tuning;
	return 0;
}

static const char *chosen_kernel(const struct sana_tuning_line *line)
{
	return line->chosen == 2 ? line->library : line->chosen == 1 ? line->own : line->estimated;
}

void bench_tuning_print(const struct sana_tuning *tuning, bool all)
{
	if (!tuning->text[0])
		return;
	(void)printf("  products, kernels chosen     %10d  measured in %.2f s, %d known, %d left; "
		     "%d by the library\n",
		     tuning->measured, tuning->seconds, tuning->known, tuning->left,
		     tuning->library);
	if (!all || !tuning->lines)
		return;
	(void)printf("\n  %-40s %9s %9s %9s  %s\n", "product measured, ms", "estimate", "own",
		     "library", "chosen");
	for (int i = 0; i < tuning->lines; i++) {
		const struct sana_tuning_line *line = &tuning->line[i];

		(void)printf("  %-40s %9.4f %9.4f %9.4f  %s\n", line->shape, line->estimated_ms,
			     line->own_ms, line->library_ms, chosen_kernel(line));
	}
	(void)printf("\n");
}

int bench_tuning_json(const struct sana_tuning *tuning, json_t *json)
{
	json_t *lines = json_array(), *object;

	for (int i = 0; lines && i < tuning->lines; i++) {
		const struct sana_tuning_line *line = &tuning->line[i];

		(void)json_array_append_new(
			lines,
			json_pack("{s:s, s:f, s:f, s:f, s:s, s:s, s:s}", "product", line->shape,
				  "ms_estimate", line->estimated_ms, "ms_own", line->own_ms,
				  "ms_library", line->library_ms, "own", line->own, "library",
				  line->library, "chosen", chosen_kernel(line)));
	}
	object = json_pack("{s:i, s:i, s:i, s:i, s:f, s:o}", "measured", tuning->measured, "known",
			   tuning->known, "left", tuning->left, "by_library", tuning->library,
			   "seconds", tuning->seconds, "products", lines);
	return json_object_set_new(json, "tuning", object);
}
