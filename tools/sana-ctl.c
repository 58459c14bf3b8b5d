/*
 * sana-ctl: sana-streamd from the shell, over the bus.
 *
 * Data goes to stdout (text, or JSON with --json), words to stderr.
 */
#include "tools/ctl/ctl.h"

#include "base/util.h"

#include <getopt.h>

static const char usage[] =
	"Usage: sana-ctl [OPTION]... COMMAND [ARGUMENT]...\n"
	"\n"
	"Controls sana-streamd.\n"
	"\n"
	"  status                  what the stream does (the default)\n"
	"  prompt TEXT             change what the picture becomes\n"
	"  policy [NAME]           list precision policies, or choose one\n"
	"  source [IDENTITY]       list sources, or choose one\n"
	"  sinks [IDENTITY]...     list sinks, or choose them; none: no sink\n"
	"  start, stop             begin and end editing\n"
	"  pause, resume           hold and go on\n"
	"  reset                   forget all history\n"
	"  reload                  read the configuration again\n"
	"  stats                   counters and measures\n"
	"  snapshot FILE           a PNG, source beside result; -: standard output\n"
	"  doctor                  say why frames may not flow, and what to type\n"
	"\n"
	"  --instance NAME         the daemon of that name\n"
	"  --session               on the session's bus\n"
	"  --wait                  with prompt: until it is in force\n"
	"  --follow                with stats: every second, until interrupted\n"
	"  --json                  JSON on stdout\n"
	"  --quiet                 nothing but errors\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 refused, 5 unsupported.\n";

enum {
	OPT_INSTANCE = 256,
	OPT_SESSION,
	OPT_WAIT,
	OPT_FOLLOW,
	OPT_JSON,
	OPT_QUIET,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "instance", required_argument, NULL, OPT_INSTANCE },
	{ "session", no_argument, NULL, OPT_SESSION },
	{ "wait", no_argument, NULL, OPT_WAIT },
	{ "follow", no_argument, NULL, OPT_FOLLOW },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

struct command {
	const char *name, *method; /* method: one without arguments */
	int least, most;	   /* arguments */
};

static const struct command commands[] = {
	{ "status", NULL, 0, 0 },     { "prompt", NULL, 1, 1 },	  { "policy", NULL, 0, 1 },
	{ "source", NULL, 0, 1 },     { "sources", NULL, 0, 0 },  { "sinks", NULL, 0, 8 },
	{ "start", "Start", 0, 0 },   { "stop", "Stop", 0, 0 },	  { "pause", "Pause", 0, 0 },
	{ "resume", "Resume", 0, 0 }, { "reset", "Reset", 0, 0 }, { "reload", "Reload", 0, 0 },
	{ "stats", NULL, 0, 0 },      { "snapshot", NULL, 1, 1 }, { "doctor", NULL, 0, 0 },
};

static int wrong(const char *what, const char *value)
{
	(void)fprintf(stderr, "sana-ctl: %s \"%s\"; see sana-ctl --help.\n", what, value);
	return CTL_USAGE;
}

static int command_run(struct ctl *ctl, const struct command *command, char **arguments, int count)
{
	const char *name = command->name;
	int status;

	if (strcmp(name, "doctor") == 0)
		return ctl_doctor(ctl);
	status = ctl_connect(ctl);
	if (status != CTL_DONE)
		return status;
	if (command->method)
		return ctl_call(ctl, NULL, command->method, "");
	if (strcmp(name, "status") == 0)
		return ctl_status(ctl);
	if (strcmp(name, "prompt") == 0)
		return ctl_prompt(ctl, arguments[0]);
	if (strcmp(name, "policy") == 0)
		return ctl_policy(ctl, count ? arguments[0] : NULL);
	if (strncmp(name, "source", strlen("source")) == 0)
		return ctl_source(ctl, count ? arguments[0] : NULL);
	if (strcmp(name, "sinks") == 0)
		return ctl_sinks(ctl, arguments, count);
	if (strcmp(name, "stats") == 0)
		return ctl_statistics(ctl);
	return ctl_snapshot(ctl, arguments[0]);
}

static int command_find(struct ctl *ctl, char **words, int count)
{
	const char *name = count ? words[0] : "status";

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		count = count ? count - 1 : 0;
		if (count < commands[i].least || count > commands[i].most)
			return wrong("wrong number of arguments for", name);
		return command_run(ctl, &commands[i], words + 1, count);
	}
	return wrong("there is no command", name);
}

/* 0: go on; 1: answered; negative: wrong. */
static int option_take(struct ctl *ctl, int option, const char *value)
{
	switch (option) {
	case OPT_INSTANCE:
		ctl->instance = value;
		return 0;
	case OPT_SESSION:
		ctl->session = true;
		return 0;
	case OPT_WAIT:
		ctl->wait = true;
		return 0;
	case OPT_FOLLOW:
		ctl->follow = true;
		return 0;
	case OPT_JSON:
		ctl->json = true;
		return 0;
	case OPT_QUIET:
		ctl->quiet = true;
		return 0;
	case OPT_HELP:
		(void)fputs(usage, stdout);
		return 1;
	case OPT_VERSION:
		(void)printf("sana-ctl %s\n", SANA_VERSION);
		return 1;
	}
	return -1; /* getopt has said what was wrong */
}

int main(int count, char **arguments)
{
	struct ctl ctl = { 0 };
	int option, status;

	while ((option = getopt_long(count, arguments, "", long_options, NULL)) >= 0) {
		const int taken = option_take(&ctl, option, optarg);

		if (taken)
			return taken > 0 ? CTL_DONE : CTL_USAGE;
	}
	status = command_find(&ctl, arguments + optind, count - optind);
	ctl.bus = sd_bus_flush_close_unref(ctl.bus);
	return status;
}
