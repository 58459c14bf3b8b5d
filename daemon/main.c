/*
 * sana-streamd: camera in, edited video out. This is the composition root: the only place that knows
 * all parts. docs/sana-streamd.8 is the manual.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/hotplug.h"
#include "daemon/main_again.h"
#include "daemon/main_config.h"
#include "daemon/main_door.h"
#include "daemon/main_journal.h"
#include "daemon/notify.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <systemd/sd-event.h>
#include <unistd.h>

enum {
	TICK_MS = 500,	     /* how often status and watchdog are looked after */
	STATUS_TICKS = 4,    /* ticks from one status line to the next */
	EXTEND_START_S = 60, /* each sign of progress while loading earns this much */
	EXIT_USAGE = 2,
	EXIT_AGAIN = 75,  /* sysexits.h: a new process may do what this one cannot */
	EXIT_CONFIG = 78, /* sysexits.h: systemd's RestartPreventExitStatus= knows it */
};

static const char usage[] =
	"Usage: sana-streamd [OPTION]...\n"
	"\n"
	"Edits live video by a text prompt: a camera in, a virtual camera or display out.\n"
	"\n"
	"  --config FILE          configuration (default " SANA_SYSCONFDIR
	"/sana-streamd/NAME.conf,\n"
	"                         NAME being the instance's or sana-streamd; without one: defaults)\n"
	"  --check-config FILE    report all mistakes of a configuration and exit\n"
	"  --instance NAME        one of several daemons: bus name org.sana.Stream1.NAME\n"
	"  --session              the bus of the session instead of the system's\n"
	"  --test-hang-after N    for tests: the engine hangs after N edited frames\n"
	"  --help, --version\n";

struct options {
	const char *config, *check, *instance;
	char standard_config[512]; /* what `config` points to when none was given */
	bool session;
	uint64_t hang_after;
};

struct daemon {
	struct options options;
	struct main_config *config; /* of the start: the devices' threads have its strings in use */
	struct main_config *reloaded; /* or NULL */
	struct main_config *pending;  /* being looked at by a reload */
	struct live_stream *stream;
	struct main_door door;
	struct hotplug *hotplug;
	sd_event *event;
	uint64_t progress;
	unsigned int ticks;
	bool ready;
	char backend_before[MAIN_AGAIN_BYTES]; /* or "" */
};

/* ------------------------------------------------------------------------------------ the options */

static int number_parse(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno || *end || !*text || *text == '-' ? -EINVAL : 0;
}

/* 0: go on; 1: done; −EINVAL: usage. */
static int options_parse(int count, char **arguments, struct options *ret)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", required_argument, NULL, 'k' },
		{ "instance", required_argument, NULL, 'i' },
		{ "session", no_argument, NULL, 's' },
		{ "test-hang-after", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	int option;

	*ret = (struct options){ 0 };
	while ((option = getopt_long(count, arguments, "", longs, NULL)) >= 0)
		switch (option) {
		case 'c':
			ret->config = optarg;
			break;
		case 'k':
			ret->check = optarg;
			break;
		case 'i':
			ret->instance = optarg;
			break;
		case 's':
			ret->session = true;
			break;
		case 't':
			if (number_parse(optarg, &ret->hang_after) < 0)
				return -EINVAL;
			break;
		case 'h':
			(void)fputs(usage, stdout);
			return 1;
		case 'v':
			(void)printf("sana-streamd %s\n", sana_version());
			return 1;
		default:
			return -EINVAL;
		}
	if (optind < count) {
		(void)fprintf(stderr, "sana-streamd: unexpected argument: %s\n", arguments[optind]);
		return -EINVAL;
	}
	return 0;
}

/* A name of its own on the bus and in file names. */
static bool instance_is_good(const char *name)
{
	const size_t length = strlen(name);

	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_')
			return false;
	return length > 0 && length < 64 && !isdigit((unsigned char)name[0]);
}

/* The standard file is read where it is; where it is not, defaults hold. */
static int options_finish(struct options *o)
{
	if (o->instance && !instance_is_good(o->instance)) {
		(void)fprintf(stderr,
			      "sana-streamd: --instance %s: a name has letters, digits and '_', at "
			      "most 63, no digit first.\n",
			      o->instance);
		return -EINVAL;
	}
	if (o->config)
		return 0;
	(void)snprintf(o->standard_config, sizeof(o->standard_config),
		       SANA_SYSCONFDIR "/sana-streamd/%s.conf",
		       o->instance ? o->instance : "sana-streamd");
	if (access(o->standard_config, F_OK) == 0)
		o->config = o->standard_config;
	return 0;
}

static int config_check(const char *path)
{
	struct settings_report report = { 0 };
	struct sana_error error = { 0 };
	struct main_config *config;

	if (main_config_load(path, &config, &report, &error) < 0) {
		for (int i = 0; i < report.kept; i++)
			(void)fprintf(stderr, "%s\n", report.text[i]);
		(void)fprintf(stderr, "sana-streamd: %d mistakes.\n", report.mistakes);
		settings_report_finish(&report);
		return EXIT_CONFIG;
	}
	(void)main_config_free(config);
	(void)printf("%s: no mistakes\n", path);
	return EXIT_SUCCESS;
}

/* ------------------------------------------------------------------------------------- the events */

static void daemon_status(struct daemon *d)
{
	char line[256];

	live_stream_describe(d->stream, line, sizeof(line));
	notify_status(line);
}

/* A client that starts then finds the name on the bus. */
static void ready_look(struct daemon *d)
{
	if (d->ready || !live_stream_is_ready(d->stream) || !bus_is_settled(d->door.bus))
		return;
	d->ready = true;
	main_again_forget(d->config->devices.state_directory);
	notify_ready();
}

static int on_stream(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct daemon *d = context;
	struct live_event event;
	bool any = false;

	(void)source;
	(void)fd;
	(void)revents;
	while (live_stream_next_event(d->stream, &event)) {
		bus_tell(d->door.bus, &event);
		any = true;
	}
	ready_look(d);
	if (any)
		daemon_status(d);
	return 0;
}

static int end_for_another(struct daemon *d)
{
	const int r =
		main_again_note(d->config->devices.state_directory, live_stream_backend(d->stream));

	log_error("The driver refuses this process the GPU: the stream ends, to be started by a "
		  "new process.");
	if (r < 0)
		log_warning("The new process is not told to wait for the GPU: %s, ignoring.",
			    strerror(-r));
	notify_stopping();
	live_stream_shut_down(d->stream);
	return sd_event_exit(d->event, EXIT_AGAIN);
}

/* Signs of life are the pipeline's own: when it hangs, so does the watchdog's feeding. */
static int on_tick(sd_event_source *source, uint64_t usec, void *context)
{
	struct daemon *d = context;
	const uint64_t progress = live_stream_progress(d->stream);

	(void)usec;
	if (live_stream_needs_new_process(d->stream))
		return end_for_another(d);
	ready_look(d);
	if (progress != d->progress) {
		d->progress = progress;
		if (d->ready)
			notify_alive();
		else if (!live_stream_engine_fails(d->stream))
			notify_extend_start(EXTEND_START_S * CLOCK_SECOND_NS);
	}
	if (d->ticks++ % STATUS_TICKS == 0)
		daemon_status(d);
	(void)sd_event_source_set_time_relative(source, TICK_MS * 1000);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int on_hotplug(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct daemon *d = context;
	struct hotplug_event event;

	(void)source;
	(void)fd;
	(void)revents;
	while (hotplug_next(d->hotplug, &event)) {
		log_debug("%s %s.", event.node, event.added ? "came" : "went");
		live_stream_devices_changed(d->stream);
	}
	return 0;
}

static int on_terminate(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
	struct daemon *d = context;

	(void)source;
	log_info("Signal %u: the stream ends.", info->ssi_signo);
	notify_stopping();
	live_stream_shut_down(d->stream);
	return sd_event_exit(d->event, 0);
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
	struct daemon *d = context;
	struct sana_error error = { 0 };

	(void)source;
	(void)info;
	notify_reloading();
	if (live_stream_reload(d->stream, &error) < 0)
		log_error("The configuration is not read again, the old one stays: %s", error.text);
	if (d->ready)
		notify_ready();
	return 0;
}

/* ------------------------------------------------------------------------------------ composition */

static void log_restart_key(void *context, const struct settings_key *key)
{
	(void)context;
	if (!key->live)
		log_notice("%s changed: this takes effect at the next start.", key->path);
}

static int reload(void *context, struct live_stream_config *ret, struct sana_error *error)
{
	struct daemon *d = context;
	struct settings_report report = { 0 };
	struct main_config *config = NULL;
	int r;

	r = main_config_load(d->options.config, &config, &report, error);
	for (int i = 0; i < report.kept; i++)
		log_warning("%s", report.text[i]);
	settings_report_finish(&report);
	if (r >= 0)
		r = main_door_try(config, error);
	if (r < 0) {
		(void)main_config_free(config);
		return r;
	}
	d->pending = config;
	*ret = config->stream;
	return 0;
}

/* The stream has looked at its part of it. */
static void reload_end(void *context, bool taken)
{
	struct daemon *d = context;
	struct sana_error error = { 0 };

	if (!taken) {
		d->pending = main_config_free(d->pending);
		return;
	}
	/* It worked a moment ago. */
	if (main_door_update(&d->door, d->pending, &error) < 0)
		log_error("The deny list stays as it was: %s", error.text);
	(void)settings_compare(d->config->settings, d->pending->settings, log_restart_key, NULL);
	(void)main_config_free(d->reloaded);
	d->reloaded = TAKE_PTR(d->pending);
	log_set_level(d->reloaded->log_level);
}

static int check_prompt(void *context, const char *text, struct sana_error *error)
{
	struct daemon *d = context;

	return guard_check_prompt(d->door.guard, text, error);
}

/* They are blocked in all threads (start_again). */
static int signals_add(struct daemon *d)
{
	int r;

	(void)signal(SIGPIPE, SIG_IGN);
	r = sd_event_add_signal(d->event, NULL, SIGTERM, on_terminate, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGINT, on_terminate, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGHUP, on_reload, d);
	return r;
}

/* "auto" after a process that lost its GPU: a CPU does not take its place. */
static void backend_wait_for(struct daemon *d, struct sana_model_options *model)
{
	if (model->backend ||
	    !main_again_read(d->config->devices.state_directory, d->backend_before))
		return;
	log_notice(
		"The process before this one lost its back end %s: it is waited for. Stop and start "
		"the service to choose anew.",
		d->backend_before);
	model->backend = d->backend_before;
}

static int stream_create(struct daemon *d, struct sana_error *error)
{
	static struct main_devices devices;
	struct live_stream_options options = {
		.config = d->config->stream,
		.list_sources = main_devices_list_sources,
		.list_sinks = main_devices_list_sinks,
		.check_prompt = check_prompt,
		.reload = d->options.config ? reload : NULL,
		.reload_end = reload_end,
		.context = d,
	};

	devices = d->config->devices;
	options.config.pipeline.devices = main_devices_functions(&devices);
	options.config.pipeline.hang_after_frames = d->options.hang_after;
	backend_wait_for(d, &options.config.pipeline.model);
	return live_stream_create(&options, &d->stream, error);
}

static int sources_add(struct daemon *d)
{
	struct sana_error error = { 0 };
	int r;

	r = sd_event_add_io(d->event, NULL, live_stream_event_fd(d->stream), EPOLLIN, on_stream, d);
	if (r >= 0)
		r = sd_event_add_time_relative(d->event, NULL, CLOCK_MONOTONIC, 0, 0, on_tick, d);
	if (r < 0)
		return r;
	if (hotplug_create(&d->hotplug, &error) < 0) {
		log_notice("Devices that come and go are found by trying only: %s", error.text);
		return 0;
	}
	return sd_event_add_io(d->event, NULL, hotplug_fd(d->hotplug), EPOLLIN, on_hotplug, d);
}

/* The installed file, where no other is named and it is there. */
static void config_default(struct options *options)
{
	static char path[256];

	if (options->config)
		return;
	(void)snprintf(path, sizeof(path), "/etc/sana-streamd/%.64s.conf",
		       options->instance ? options->instance : "sana-streamd");
	if (access(path, F_OK) == 0)
		options->config = path;
}

/*
 * What starting again cannot mend: words that somebody has to change. A full disk, or a model that cannot be
 * read, as on a directory that is not mounted yet, is none of it.
 */
static int start_status(const struct sana_error *error)
{
	static const char *const names[] = { "prompt.",	   "source.identity", "sink.identity",
					     "sink.twice", "sink.many",	      "stream.options" };

	if (strcmp(error->name, "model.config") == 0)
		return error->code == -EINVAL ? EXIT_CONFIG : EXIT_FAILURE;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strncmp(error->name, names[i], strlen(names[i])) == 0)
			return EXIT_CONFIG;
	return EXIT_FAILURE;
}

static int daemon_run(struct daemon *d)
{
	struct settings_report report = { 0 };
	struct sana_error error = { 0 };
	int r;

	config_default(&d->options);
	r = main_config_load(d->options.config, &d->config, &report, &error);
	for (int i = 0; i < report.kept; i++)
		log_error("%s", report.text[i]);
	settings_report_finish(&report);
	if (r < 0)
		return EXIT_CONFIG;
	log_set_level(d->config->log_level);
	r = sd_event_default(&d->event);
	if (r >= 0)
		r = signals_add(d);
	if (r < 0) {
		log_error("No event loop: %s.", strerror(-r));
		return EXIT_FAILURE;
	}
	if (main_door_guard(&d->door, d->config, &error) < 0 || stream_create(d, &error) < 0 ||
	    main_door_bus(&d->door, d->config, d->stream, d->event, d->options.instance,
			  d->options.session, &error) < 0) {
		log_error("%s", error.text);
		return start_status(&error);
	}
	/* From here on progress is watched (on_tick); the service manager waits as long as that goes on. */
	notify_extend_start(EXTEND_START_S * CLOCK_SECOND_NS);
	r = sources_add(d);
	if (r >= 0)
		r = sd_event_loop(d->event);
	if (r < 0)
		log_error("The event loop ended: %s.", strerror(-r));
	return r < 0 ? EXIT_FAILURE : r;
}

/*
 * Libraries start threads before main, and those must leave our signals to the loop and wait for each
 * other asleep (engine/sana.h): both the signal mask and the environment are handed down by one more
 * start of ourselves. Where that fails, what is right for the threads to come is in force anyway.
 */
static void start_again(char **arguments)
{
	sigset_t ours, before;

	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGTERM);
	(void)sigaddset(&ours, SIGINT);
	(void)sigaddset(&ours, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &ours, &before);
	if (sigismember(&before, SIGTERM) == 1 && sigismember(&before, SIGINT) == 1 &&
	    sigismember(&before, SIGHUP) == 1)
		return;
	if (!getenv("GOMP_SPINCOUNT"))
		(void)setenv("OMP_WAIT_POLICY", "passive", 0);
	(void)execv("/proc/self/exe", arguments);
}

int main(int count, char **arguments)
{
	struct daemon d = { 0 };
	int status;

	status = options_parse(count, arguments, &d.options);
	if (status == 0)
		status = options_finish(&d.options);
	if (status != 0) {
		if (status < 0)
			(void)fputs(usage, stderr);
		return status < 0 ? EXIT_USAGE : EXIT_SUCCESS;
	}
	if (d.options.check)
		return config_check(d.options.check);
	start_again(arguments);
	(void)main_journal_use();
	status = daemon_run(&d);
	main_door_close(&d.door);
	d.stream = live_stream_destroy(d.stream);
	d.hotplug = hotplug_destroy(d.hotplug);
	d.event = sd_event_unref(d.event);
	d.reloaded = main_config_free(d.reloaded);
	d.config = main_config_free(d.config);
	return status;
}
