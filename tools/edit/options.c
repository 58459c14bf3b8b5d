/* sana-edit: the command line. */
#include "tools/common/arguments.h"
#include "tools/edit/edit.h"

#include <errno.h>
#include <getopt.h>

static const char usage[] =
	"Usage: sana-edit IN OUT --prompt TEXT [--prompt-at TIME TEXT]… [OPTION]…\n"
	"\n"
	"Edits a video as the prompt says, frame for frame.\n"
	"\n"
	"  IN    video file; numbered pictures (in/%04d.png); /dev/videoN; pattern: for a test\n"
	"        pattern; - for YUV4MPEG2 on standard input\n"
	"  OUT   .mp4 .m4v .mov .mkv .webm .y4m; numbered pictures (out/%04d.png, .jpg);\n"
	"        - for YUV4MPEG2 on standard output\n"
	"\n"
	"  --prompt TEXT           what to do from the start\n"
	"  --prompt-at TIME TEXT   what to do from the first chunk that starts at TIME or later\n"
	"  --model DIR             model directory (default: the demo model)\n"
	"  --seed N                seed of the noise (default 0)\n"
	"  --size WxH              size of the edited pictures (default: the model's)\n"
	"  --fps N                 constant frame rate: frames are dropped or doubled; rate of\n"
	"                          sources without one\n"
	"  --duration TIME         stop there; cameras want it\n"
	"  --switch MODE           keep, recache or restart at a new prompt (default: the model's)\n"
	"  --first-chunk N         latents of the first chunk (default: the model's)\n"
	"  --no-antialias          shrink pictures as the reference does; --antialias is default\n"
	"  --codec NAME            h264, mpeg4, vp9 or ffv1 (lossless, .mkv)\n"
	"  --no-audio              leave the sound out\n"
	"  --save-latents FILE     write latents as safetensors, too\n"
	"  --overwrite             replace OUT if it exists\n"
	"  --keep-partial          an interrupted run gives OUT its name all the same\n"
	"  --threads N             worker threads (default: one per core)\n"
	"  --backend NAME          cpu, cuda, or auto: the GPU where it can be used (default auto)\n"
	"  --deterministic         the same bits in every process; on a GPU it may be slower\n"
	"  --json                  events as JSON lines on stdout (on stderr when OUT is -)\n"
	"  --quiet                 errors and warnings only\n"
	"  --help, --version\n"
	"\n"
	"TIME: 5s, 250ms, 1:02.5, or a frame number as #120.\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage, 3 input, 4 output, 130 interrupted.\n";

enum {
	OPT_PROMPT = 256,
	OPT_PROMPT_AT,
	OPT_MODEL,
	OPT_SEED,
	OPT_SIZE,
	OPT_FPS,
	OPT_DURATION,
	OPT_SWITCH,
	OPT_FIRST,
	OPT_ANTIALIAS,
	OPT_NO_ANTIALIAS,
	OPT_CODEC,
	OPT_NO_AUDIO,
	OPT_LATENTS,
	OPT_OVERWRITE,
	OPT_KEEP_PARTIAL,
	OPT_THREADS,
	OPT_BACKEND,
	OPT_DETERMINISTIC,
	OPT_JSON,
	OPT_QUIET,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "prompt", required_argument, NULL, OPT_PROMPT },
	{ "prompt-at", required_argument, NULL, OPT_PROMPT_AT },
	{ "model", required_argument, NULL, OPT_MODEL },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "fps", required_argument, NULL, OPT_FPS },
	{ "duration", required_argument, NULL, OPT_DURATION },
	{ "switch", required_argument, NULL, OPT_SWITCH },
	{ "first-chunk", required_argument, NULL, OPT_FIRST },
	{ "antialias", no_argument, NULL, OPT_ANTIALIAS },
	{ "no-antialias", no_argument, NULL, OPT_NO_ANTIALIAS },
	{ "codec", required_argument, NULL, OPT_CODEC },
	{ "no-audio", no_argument, NULL, OPT_NO_AUDIO },
	{ "save-latents", required_argument, NULL, OPT_LATENTS },
	{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
	{ "keep-partial", no_argument, NULL, OPT_KEEP_PARTIAL },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "backend", required_argument, NULL, OPT_BACKEND },
	{ "deterministic", no_argument, NULL, OPT_DETERMINISTIC },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int wrong(const char *what, const char *value)
{
	(void)fprintf(stderr, "sana-edit: %s: \"%s\"; see sana-edit --help.\n", what, value);
	return -EINVAL;
}

static int missing(const char *what)
{
	(void)fprintf(stderr, "sana-edit: %s; see sana-edit --help.\n", what);
	return -EINVAL;
}

static int seed_parse(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	*ret = strtoull(text, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static int prompt_add(struct edit_options *options, const char *text, struct edit_time at)
{
	struct edit_prompt *grown =
		realloc(options->prompt, (options->prompts + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	options->prompt = grown;
	grown[options->prompts++] = (struct edit_prompt){ text, at };
	return 0;
}

/* Takes two words: the time in `value`, the text behind it. */
static int prompt_at_take(struct edit_options *options, const char *value, int count,
			  char **arguments)
{
	struct edit_time at;

	if (edit_time_parse(value, &at) < 0)
		return wrong("prompt-at is a time such as 5s, 1:02.5 or #120, not", value);
	if (optind >= count)
		return missing("--prompt-at TIME wants a text behind the time");
	return prompt_add(options, arguments[optind++], at);
}

static int switch_parse(const char *text, enum sana_prompt_switch *ret)
{
	*ret = sana_prompt_switch_from_name(text);
	return *ret == SANA_SWITCH_INVALID ? -EINVAL : 0;
}

static int codec_check(const char *text)
{
	static const char *const names[] = { "h264", "mpeg4", "vp9", "ffv1" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], text) == 0)
			return 0;
	return wrong("codec is h264, mpeg4, vp9 or ffv1, not", text);
}

/* Options with a value. 0: taken; 1: not one of these; negative: wrong. */
static int value_take(struct edit_options *options, int option, const char *value)
{
	switch (option) {
	case OPT_PROMPT:
		return prompt_add(options, value, (struct edit_time){ .frame = 0 });
	case OPT_MODEL:
		options->model.directory = value;
		return 0;
	case OPT_SEED:
		return seed_parse(value, &options->stream.seed) < 0 ?
			       wrong("seed is a number from 0 on, not", value) :
			       0;
	case OPT_SIZE:
		return argument_size(value, MODEL_MAX_PIXELS, &options->stream.width,
				     &options->stream.height) < 0 ?
			       wrong("size is WIDTHxHEIGHT, such as 256x144, up to 16384, not",
				     value) :
			       0;
	case OPT_FPS:
		return edit_rate_parse(value, &options->fps) < 0 ?
			       wrong("fps is a rate such as 24, 29.97 or 30000/1001, not", value) :
			       0;
	case OPT_DURATION:
		return edit_time_parse(value, &options->duration) < 0 ||
				       (options->duration.ns == 0 && options->duration.frame <= 0) ?
			       wrong("duration is a time such as 5s, 1:02.5 or #120, not", value) :
			       0;
	case OPT_SWITCH:
		return switch_parse(value, &options->stream.prompt_switch) < 0 ?
			       wrong("switch is keep, recache or restart, not", value) :
			       0;
	case OPT_FIRST:
		return argument_integer(value, 1, MODEL_MAX_CHUNK_LATENTS,
					&options->stream.first_chunk_latents) < 0 ?
			       wrong("first-chunk is a small number of latents, not", value) :
			       0;
	case OPT_CODEC:
		options->codec = value;
		return codec_check(value);
	case OPT_LATENTS:
		options->latents_path = value;
		return 0;
	case OPT_THREADS:
		return argument_integer(value, 1, 256, &options->model.threads) < 0 ?
			       wrong("threads is a number from 1 to 256, not", value) :
			       0;
	case OPT_DETERMINISTIC:
		options->model.deterministic = true;
		return 0;
	case OPT_BACKEND:
		options->model.backend = value;
		options->backend_said = true;
		return 0;
	}
	return 1;
}

/* Options without a value. 0: taken; 1: answered; negative: wrong. */
static int flag_take(struct edit_options *options, int option)
{
	switch (option) {
	case OPT_ANTIALIAS:
	case OPT_NO_ANTIALIAS:
		options->no_antialias = option == OPT_NO_ANTIALIAS;
		return 0;
	case OPT_NO_AUDIO:
		options->no_audio = true;
		return 0;
	case OPT_OVERWRITE:
		options->overwrite = true;
		return 0;
	case OPT_KEEP_PARTIAL:
		options->keep_partial = true;
		return 0;
	case OPT_JSON:
		options->json = true;
		return 0;
	case OPT_QUIET:
		options->quiet = true;
		return 0;
	case OPT_HELP:
		(void)fputs(usage, stdout);
		return 1;
	case OPT_VERSION:
		(void)printf("sana-edit %s\n", sana_version());
		return 1;
	}
	return -EINVAL; /* getopt has said what was wrong */
}

/* Where a prompt lies in the source, for sorting: frame numbers count as frames of 24 a second. */
static int64_t order(const struct edit_prompt *prompt)
{
	return prompt->at.frame >= 0 ? prompt->at.frame * (EDIT_SECOND_NS / 24) : prompt->at.ns;
}

/* Stable, and there are few. */
static void prompts_sort(struct edit_options *options)
{
	struct edit_prompt *p = options->prompt, moved;
	size_t j;

	for (size_t i = 1; i < options->prompts; i++) {
		moved = p[i];
		for (j = i; j > 0 && order(&p[j - 1]) > order(&moved); j--)
			p[j] = p[j - 1];
		p[j] = moved;
	}
}

static int options_check(struct edit_options *options, int count, char **arguments)
{
	size_t at_start = 0;

	if (count - optind < 2)
		return missing("give a source and a target: sana-edit IN OUT --prompt TEXT");
	if (count - optind > 2)
		return wrong("unexpected argument", arguments[optind + 2]);
	options->in = arguments[optind];
	options->out = arguments[optind + 1];
	for (size_t i = 0; i < options->prompts; i++)
		at_start += order(&options->prompt[i]) == 0;
	if (at_start == 0)
		return missing("say what to do from the start with --prompt TEXT");
	if (at_start > 1)
		return missing("two prompts begin at the start; later ones are given with "
			       "--prompt-at TIME TEXT");
	prompts_sort(options);
	return 0;
}

int edit_options_parse(int count, char **arguments, struct edit_options *ret)
{
	int option, r = 0;

	*ret = (struct edit_options){ .duration = { .frame = -1 }, .model.backend = "auto" };
	sana_stream_options_init(&ret->stream);
	while (r == 0 && (option = getopt_long(count, arguments, "", long_options, NULL)) != -1) {
		if (option == OPT_PROMPT_AT)
			r = prompt_at_take(ret, optarg, count, arguments);
		else
			r = value_take(ret, option, optarg);
		if (r == 1)
			r = flag_take(ret, option);
	}
	return r ? r : options_check(ret, count, arguments);
}

void edit_options_finish(struct edit_options *options)
{
	free(options->prompt);
	options->prompt = NULL;
}
