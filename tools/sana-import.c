/*
 * sana-import: published weights in, a model directory out; or a look at either.
 *
 * Data goes to stdout (sentences, or JSON with --json), words and progress to stderr.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>

#include "engine/sana.h"
#include "tools/common/arguments.h"
#include "tools/import/describe.h"
#include "tools/import/run.h"

static const char usage[] =
	"Usage: sana-import SOURCE… --output DIR [OPTION]…\n"
	"       sana-import --raw FILE --output DIR [OPTION]…\n"
	"       sana-import --describe PATH [--size WxH] [--tensors] [--verify] [--json]\n"
	"\n"
	"Makes a model directory from downloaded files: the SANA-Streaming DiT (.pth or\n"
	".safetensors), the causal or the public LTX-2 VAE, and Gemma-2-2b-it. Sources are\n"
	"files or directories in any layout. Nothing in them is executed.\n"
	"\n"
	"  --output DIR      the directory to make; it appears when it is complete\n"
	"  --partial         import also when a part is not among the sources\n"
	"  --raw             one state dict of any model, as it is\n"
	"  --check-crc       compare the CRC-32 of zip entries first\n"
	"  --no-sync         do not wait for the disk: quicker, not safe from power cuts\n"
	"  --describe PATH   print what a model directory, a download or a file holds\n"
	"  --size WxH        picture size of the memory plan (default: the model's)\n"
	"  --tensors         list every tensor\n"
	"  --verify          compare the files with the manifest's SHA-256\n"
	"  --json            one JSON object on stdout\n"
	"  --quiet           no progress\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage, 3 stopped by a signal. After 1 or 3\n"
	"the same command goes on where it stopped.\n";

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 3 };

enum {
	OPT_OUTPUT = 256,
	OPT_PARTIAL,
	OPT_RAW,
	OPT_CRC,
	OPT_NO_SYNC,
	OPT_DESCRIBE,
	OPT_SIZE,
	OPT_TENSORS,
	OPT_VERIFY,
	OPT_JSON,
	OPT_QUIET,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "partial", no_argument, NULL, OPT_PARTIAL },
	{ "raw", no_argument, NULL, OPT_RAW },
	{ "check-crc", no_argument, NULL, OPT_CRC },
	{ "no-sync", no_argument, NULL, OPT_NO_SYNC },
	{ "describe", required_argument, NULL, OPT_DESCRIBE },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "tensors", no_argument, NULL, OPT_TENSORS },
	{ "verify", no_argument, NULL, OPT_VERIFY },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

struct command {
	struct plan_options plan;
	struct run_options run;
	struct describe_options describe;
	bool check_crc, json;
};

static int wrong(const char *what, const char *value)
{
	(void)fprintf(stderr, "sana-import: %s: \"%s\"; see sana-import --help.\n", what, value);
	return -EINVAL;
}

static int size_parse(const char *text, int *ret_width, int *ret_height)
{
	return argument_size(text, MODEL_MAX_PIXELS, ret_width, ret_height) < 0 ?
		       wrong("a size is written WIDTHxHEIGHT, such as 1280x704, not", text) :
		       0;
}

/* 0: go on; 1: answered (help, version); negative: wrong. */
static int option_take(struct command *command, int option, const char *value)
{
	switch (option) {
	case OPT_OUTPUT:
		command->run.output = value;
		return 0;
	case OPT_PARTIAL:
		command->plan.partial = true;
		return 0;
	case OPT_RAW:
		command->plan.raw = true;
		return 0;
	case OPT_CRC:
		command->check_crc = true;
		return 0;
	case OPT_NO_SYNC:
		command->run.no_sync = true;
		return 0;
	case OPT_DESCRIBE:
		command->describe.path = value;
		return 0;
	case OPT_SIZE:
		return size_parse(value, &command->describe.width, &command->describe.height);
	case OPT_TENSORS:
		command->describe.tensors = true;
		return 0;
	case OPT_VERIFY:
		command->describe.verify = true;
		return 0;
	case OPT_JSON:
		command->json = command->describe.json = true;
		return 0;
	case OPT_QUIET:
		command->run.quiet = true;
		return 0;
	case OPT_HELP:
		(void)fputs(usage, stdout);
		return 1;
	case OPT_VERSION:
		(void)printf("sana-import %s\n", sana_version());
		return 1;
	}
	return -EINVAL; /* getopt has said what was wrong */
}

/* A trailing slash would hide the name that "….partial" is made from. */
static int output_check(struct command *command, char *to, size_t bytes)
{
	size_t length = strlen(command->run.output);

	if (length == 0 || length >= bytes)
		return wrong("output is a directory's name, not", command->run.output);
	memcpy(to, command->run.output, length + 1);
	while (length > 1 && to[length - 1] == '/')
		to[--length] = '\0';
	command->run.output = to;
	return 0;
}

/* What does not go together. */
static int usage_check(const struct command *command)
{
	const struct describe_options *describe = &command->describe;

	if (describe->path && (command->plan.count || command->run.output || command->plan.raw))
		return wrong("--describe takes no sources and no output", describe->path);
	if (!describe->path && (describe->width || describe->tensors || describe->verify))
		return wrong("--size, --tensors and --verify belong to", "--describe");
	if (!describe->path && (!command->plan.count || !command->run.output))
		return wrong("sources and --output DIR are needed", "");
	return 0;
}

static int crc_check(const struct plan *plan, struct sana_error *error)
{
	int r = 0;

	for (int kind = 0; r >= 0 && kind < PART_COUNT; kind++)
		if (plan->part[kind].set)
			r = set_check_crc(plan->part[kind].set, error);
	return r;
}

static int result_print(const struct command *command, const struct plan *plan,
			const struct run_result *result)
{
	double rate = result->seconds > 0 ? (double)(result->bytes - result->resumed_bytes) /
						    result->seconds / 1e6 :
					    0;

	if (command->json) {
		json_t *manifest = json_loads(result->manifest, 0, NULL);

		return describe_print_json(
			json_pack("{s:s?, s:f, s:I, s:I, s:f, s:o}", "output", command->run.output,
				  "seconds", result->seconds, "bytes", (json_int_t)result->bytes,
				  "resumed_bytes", (json_int_t)result->resumed_bytes,
				  "megabytes_per_second", rate, "manifest", manifest));
	}
	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct part *part = &plan->part[kind];

		if (part->set)
			(void)printf("%s: %zu tensors, %.3f GB from %s\n",
				     plan->raw ? part->looks : part_title(part->kind),
				     part->out.count, (double)part->out.bytes / 1e9,
				     part->set->path);
		else if (!plan->raw)
			(void)printf("%s: NOT THERE; the directory cannot be run without it\n",
				     part_title((enum part_kind)kind));
	}
	(void)printf("%s: %.3f GB in %.1f s, %.0f MB/s; licences and digests: %s/manifest.json\n",
		     command->run.output, (double)result->bytes / 1e9, result->seconds, rate,
		     command->run.output);
	return fflush(stdout) == EOF ? -EIO : 0;
}

/* Every difference, one per line; the error's sentence shows the first ones. */
static void words_print(const struct plan *plan)
{
	for (size_t i = 0; i < plan->notes.count; i++)
		(void)fprintf(stderr, "sana-import: note: %s.\n", plan->notes.line[i]);
	for (size_t i = 0; i < plan->differences.count; i++)
		(void)fprintf(stderr, "sana-import: difference: %s\n", plan->differences.line[i]);
}

static int import(const struct command *command, struct sana_error *error)
{
	struct run_result result = { 0 };
	struct plan plan;
	int r;

	r = plan_make(&command->plan, &plan, error);
	words_print(&plan);
	if (r >= 0 && command->check_crc)
		r = crc_check(&plan, error);
	if (r >= 0)
		r = run_plan(&plan, &command->run, &result, error);
	if (r >= 0)
		r = result_print(command, &plan, &result);
	if (r < 0 && command->json) {
		json_t *differences = json_array();

		for (size_t i = 0; i < plan.differences.count; i++)
			(void)json_array_append_new(differences,
						    json_string(plan.differences.line[i]));
		(void)describe_print_json(json_pack("{s:{s:s, s:s}, s:o}", "error", "name",
						    error->name, "text", error->text, "differences",
						    differences));
	}
	free(result.manifest);
	plan_finish(&plan);
	return r;
}

/*
 * The one thing a signal handler can change. Blocking the signals and asking for them would not do:
 * the BLAS library starts threads of its own before main, which would get them.
 */
static volatile sig_atomic_t stop_signal;

static void stop_note(int number)
{
	stop_signal = number;
}

static bool stop_was_asked(void)
{
	return stop_signal != 0;
}

/* Signals that ask to stop wait until a piece is written; a file that grows too large is an error. */
static void signals_prepare(void)
{
	const struct sigaction note = { .sa_handler = stop_note, .sa_flags = SA_RESTART };
	const struct sigaction ignore = { .sa_handler = SIG_IGN };

	(void)sigaction(SIGINT, &note, NULL);
	(void)sigaction(SIGTERM, &note, NULL);
	(void)sigaction(SIGHUP, &note, NULL);
	(void)sigaction(SIGXFSZ, &ignore, NULL);
}

int main(int count, char **arguments)
{
	struct command command = { .run.stopped = stop_was_asked };
	struct sana_error error = { 0 };
	char output[4000];
	int option, r = 0;

	while (r == 0 && (option = getopt_long(count, arguments, "", long_options, NULL)) != -1)
		r = option_take(&command, option, optarg);
	if (r > 0)
		return 0;
	command.plan.places = arguments + optind;
	command.plan.count = count - optind;
	if (r == 0)
		r = usage_check(&command);
	if (r == 0 && command.run.output)
		r = output_check(&command, output, sizeof(output));
	if (r < 0)
		return EXIT_USAGE;
	if (command.describe.path) {
		r = describe(&command.describe, &error);
	} else {
		signals_prepare();
		r = import(&command, &error);
	}
	if (r < 0)
		(void)fprintf(stderr, "sana-import: %s\n",
			      error.text[0] ? error.text : strerror(-r));
	if (r == -EINTR)
		return EXIT_STOPPED;
	return r < 0 ? EXIT_FAILED : 0;
}
