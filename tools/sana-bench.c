/*
 * sana-bench: what a model takes and how fast it runs here.
 *
 * Data goes to stdout (a table, or JSON with --json), words to stderr.
 */
#include "base/cache_directory.h"
#include "base/util.h"
#include "tools/bench/bench.h"
#include "tools/common/arguments.h"
#include "tools/common/threads.h"

#include <errno.h>
#include <getopt.h>

static const char usage[] =
	"Usage: sana-bench [--plan] (--model DIR | --shape 2b|demo) [OPTION]…\n"
	"       sana-bench --self-test FILE [--backend NAME] [--model DIR]\n"
	"       sana-bench --verify-report FILE\n"
	"\n"
	"Measures the speed of a model on this machine, or prints what it would take.\n"
	"\n"
	"  --model DIR             model directory\n"
	"  --shape NAME            a configuration (2b, demo) without its weights\n"
	"  --weights synthetic:N   seed of the generated weights of a shape (default synthetic:0)\n"
	"  --plan                  print memory and cost, open no weights\n"
	"  --ops                   with --plan: every op of a chunk, what it must do at least\n"
	"  --size WxH              picture size (default: the model's)\n"
	"  --first-chunk N         latents of the first chunk (default: the model's)\n"
	"  --decode-latents N      latents decoded at once (default: a chunk's); fewer take less memory\n"
	"  --chunks N              chunks to time (default 10)\n"
	"  --warm-up N             chunks before them (default 2; a GPU needs 6 until its graphs are made)\n"
	"  --fps N                 source frames come at this rate, as from a camera (default: all at once)\n"
	"  --profile               then two chunks more, every op timed by itself\n"
	"  --estimate NAME         what rtx5090 or gb10 would take: with --plan from counts alone, else with\n"
	"                          --profile on a GPU, where the same model must give back what is measured\n"
	"  --self-test FILE        check every op of the GPU against the CPU, time them, write one report\n"
	"  --verify-report FILE    say whether a report is as it was written\n"
	"  --threads N             worker threads (default: one per core)\n"
	"  --backend NAME          cpu, cuda, or auto: the GPU where it can be used (default auto)\n"
	"  --deterministic         choose kernels by rule, measure none: the same bits in every process\n"
	"  --weights-mode MODE     auto, mapped or widened (default auto)\n"
	"  --prompt TEXT           prompt to run with (default: the model's first example)\n"
	"  --storage TYPE          state table of --plan in bf16 (default) or f32\n"
	"  --json                  one JSON object on stdout\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 failed or something is wrong, 2 wrong usage, 3 the plan does not fit this machine.\n";

enum {
	OPT_MODEL = 256,
	OPT_SHAPE,
	OPT_WEIGHTS,
	OPT_PLAN,
	OPT_OPS,
	OPT_SIZE,
	OPT_FIRST,
	OPT_DECODE,
	OPT_CHUNKS,
	OPT_WARM,
	OPT_PROFILE,
	OPT_FPS,
	OPT_ESTIMATE,
	OPT_SELF_TEST,
	OPT_VERIFY,
	OPT_THREADS,
	OPT_BACKEND,
	OPT_DETERMINISTIC,
	OPT_MODE,
	OPT_PROMPT,
	OPT_STORAGE,
	OPT_JSON,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "model", required_argument, NULL, OPT_MODEL },
	{ "shape", required_argument, NULL, OPT_SHAPE },
	{ "weights", required_argument, NULL, OPT_WEIGHTS },
	{ "plan", no_argument, NULL, OPT_PLAN },
	{ "ops", no_argument, NULL, OPT_OPS },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "first-chunk", required_argument, NULL, OPT_FIRST },
	{ "decode-latents", required_argument, NULL, OPT_DECODE },
	{ "chunks", required_argument, NULL, OPT_CHUNKS },
	{ "warm-up", required_argument, NULL, OPT_WARM },
	{ "fps", required_argument, NULL, OPT_FPS },
	{ "profile", no_argument, NULL, OPT_PROFILE },
	{ "estimate", required_argument, NULL, OPT_ESTIMATE },
	{ "self-test", required_argument, NULL, OPT_SELF_TEST },
	{ "verify-report", required_argument, NULL, OPT_VERIFY },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "backend", required_argument, NULL, OPT_BACKEND },
	{ "deterministic", no_argument, NULL, OPT_DETERMINISTIC },
	{ "weights-mode", required_argument, NULL, OPT_MODE },
	{ "prompt", required_argument, NULL, OPT_PROMPT },
	{ "storage", required_argument, NULL, OPT_STORAGE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int wrong(const char *what, const char *value)
{
	(void)fprintf(stderr, "sana-bench: %s: \"%s\"; see sana-bench --help.\n", what, value);
	return -EINVAL;
}

static int size_parse(const char *text, int *ret_width, int *ret_height)
{
	return argument_size(text, MODEL_MAX_PIXELS, ret_width, ret_height) < 0 ?
		       wrong("a size is written WIDTHxHEIGHT, such as 1280x704, not", text) :
		       0;
}

static int seed_parse(const char *text, uint64_t *ret)
{
	static const char prefix[] = "synthetic:";
	char *end;

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0 || !text[sizeof(prefix) - 1] ||
	    text[sizeof(prefix) - 1] == '-')
		return wrong("weights are written synthetic:SEED, not", text);
	errno = 0;
	*ret = strtoull(text + sizeof(prefix) - 1, &end, 10);
	return errno || *end ? wrong("weights are written synthetic:SEED, not", text) : 0;
}

static int mode_parse(const char *text, enum sana_weights_mode *ret)
{
	static const char *const names[] = {
		[SANA_WEIGHTS_AUTO] = "auto",
		[SANA_WEIGHTS_MAPPED] = "mapped",
		[SANA_WEIGHTS_WIDENED] = "widened",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], text) == 0) {
			*ret = (enum sana_weights_mode)i;
			return 0;
		}
	return wrong("weights-mode is auto, mapped or widened, not", text);
}

static int storage_parse(const char *text, bool *ret_bf16)
{
	*ret_bf16 = strcmp(text, "bf16") == 0;
	return *ret_bf16 || strcmp(text, "f32") == 0 ? 0 :
						       wrong("storage is bf16 or f32, not", text);
}

/* 0: go on; 1: answered (help, version); negative: wrong. */
static int option_take(struct bench *bench, int option, const char *value)
{
	switch (option) {
	case OPT_MODEL:
		bench->model.directory = value;
		return 0;
	case OPT_SHAPE:
		bench->model.shape = value;
		return 0;
	case OPT_WEIGHTS:
		return seed_parse(value, &bench->model.synthetic_seed);
	case OPT_PLAN:
		bench->plan_only = true;
		return 0;
	case OPT_OPS:
		bench->ops = bench->plan_only = true;
		return 0;
	case OPT_SIZE:
		return size_parse(value, &bench->stream.width, &bench->stream.height);
	case OPT_FIRST:
		if (argument_integer(value, 1, MODEL_MAX_CHUNK_LATENTS,
				     &bench->stream.first_chunk_latents) < 0)
			return wrong("first-chunk is a small number of latents, not", value);
		return 0;
	case OPT_DECODE:
		if (argument_integer(value, 1, MODEL_MAX_CHUNK_LATENTS,
				     &bench->stream.decode_latents) < 0)
			return wrong("decode-latents is a small number of latents, not", value);
		return 0;
	case OPT_CHUNKS:
		if (argument_integer(value, 1, 1000000, &bench->chunks) < 0)
			return wrong("chunks is a number from 1 to 1000000, not", value);
		return 0;
	case OPT_WARM:
		if (argument_integer(value, 1, 1000, &bench->warm_chunks) < 0)
			return wrong("warm-up is a number from 1 to 1000, not", value);
		return 0;
	case OPT_FPS:
		if (argument_integer(value, 1, 1000, &bench->fps) < 0)
			return wrong("fps is a number from 1 to 1000, not", value);
		return 0;
	case OPT_ESTIMATE:
		if (!bench_estimate_knows(value))
			return wrong("estimate is rtx5090 or gb10, not", value);
		bench->estimate = value;
		bench->profile = true;
		return 0;
	case OPT_PROFILE:
		bench->profile = true;
		return 0;
	case OPT_SELF_TEST:
		bench->self_test = value;
		return 0;
	case OPT_VERIFY:
		bench->verify = value;
		return 0;
	case OPT_THREADS:
		if (argument_integer(value, 1, 256, &bench->model.threads) < 0)
			return wrong("threads is a number from 1 to 256, not", value);
		return 0;
	case OPT_BACKEND:
		bench->model.backend = value;
		return 0;
	case OPT_DETERMINISTIC:
		bench->model.deterministic = true;
		return 0;
	case OPT_MODE:
		return mode_parse(value, &bench->model.weights);
	case OPT_PROMPT:
		bench->prompt = value;
		return 0;
	case OPT_STORAGE:
		return storage_parse(value, &bench->state_bf16);
	case OPT_JSON:
		bench->json = true;
		return 0;
	case OPT_HELP:
		(void)fputs(usage, stdout);
		return 1;
	case OPT_VERSION:
		(void)printf("sana-bench %s\n", sana_version());
		return 1;
	}
	return -EINVAL; /* getopt has said what was wrong */
}

int main(int count, char **arguments)
{
	struct bench bench = { .chunks = 10, .warm_chunks = 2, .state_bf16 = true };
	char cache[4096];
	struct sana_error error = { 0 };
	int option, r = 0;

	tool_threads_sleep(arguments);
	sana_stream_options_init(&bench.stream);
	bench.model.backend = "auto";
	if (cache_directory(cache, sizeof(cache)) >= 0)
		bench.model.tuning_directory = cache;
	while (r == 0 && (option = getopt_long(count, arguments, "", long_options, NULL)) != -1)
		r = option_take(&bench, option, optarg);
	if (r > 0)
		return 0;
	if (r == 0 && optind < count)
		r = wrong("unexpected argument", arguments[optind]);
	if (r == 0 && !bench.model.directory && !bench.model.shape && !bench.self_test &&
	    !bench.verify) {
		(void)fputs(
			"sana-bench: give --model DIR or --shape NAME; see sana-bench --help.\n",
			stderr);
		r = -EINVAL;
	}
	if (r < 0)
		return 2;
	r = bench.verify    ? bench_report_verify(bench.verify, &error) :
	    bench.self_test ? bench_self_test(&bench, &error) :
	    bench.plan_only ? bench_plan(&bench, &error) :
			      bench_run(&bench, &error);
	if (r < 0)
		(void)fprintf(stderr, "sana-bench: %s\n",
			      error.text[0] ? error.text : strerror(-r));
	if (r == -ENOSPC)
		return 3;
	return r < 0 ? 1 : 0;
}
