/*
 * The real process: what it tells the service manager, how it takes signals, what it leaves behind. With
 * the demo model, the test pattern and a file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "daemon/notify.h"
#include "media/source.h"
#include "tests/common/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
enum { START_S = 240, SLOW = 10 };
#else
enum { START_S = 60, SLOW = 1 };
#endif

struct process {
	struct scratch scratch;
	pid_t pid;
	int notify;						/* datagrams of the process */
	int64_t extended, ready, watchdog, reloading, stopping; /* how often each was said */
	int64_t ready_ns, watchdog_ns;
	char status[256]; /* the last line */
	bool extended_first;
};

static const char config[] = "model = { directory = \"%s/models/demo\"; threads = 1; width = 64; "
			     "height = 48; };\n"
			     "source = { identity = \"pattern:\"; };\n"
			     "prompt = { initial = \"invert the colors\"; };\n"
			     "output = { sinks = [ \"file:%s\" ]; };\n";

static const char *binary(void)
{
	static char path[256];
	const char *build = getenv("BUILD");

	(void)snprintf(path, sizeof(path), "%s/bin/sana-streamd", build ? build : "build");
	return path;
}

static void notify_open(struct process *p)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/notify", p->scratch.path);
	p->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(p->notify >= 0);
	assert_int_equal(bind(p->notify, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void process_exec(struct process *p, char *const arguments[])
{
	const int log = open(scratch_path(&p->scratch, "log"),
			     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	(void)setenv("NOTIFY_SOCKET", scratch_path(&p->scratch, "notify"), 1);
	(void)setenv("WATCHDOG_USEC", "4000000", 1);
	(void)unsetenv("WATCHDOG_PID");
	(void)dup2(log, STDERR_FILENO);
	(void)execv(arguments[0], arguments);
	_exit(127);
}

/* With this configuration, in p->scratch. */
static void process_start_with(struct process *p, const char *text, const char *option,
			       const char *value)
{
	char file[256];
	char *const arguments[] = { (char *)binary(), "--config",    file, "--session",
				    (char *)option,   (char *)value, NULL };

	scratch_write_text(&p->scratch, "conf", text);
	(void)snprintf(file, sizeof(file), "%s", scratch_path(&p->scratch, "conf"));
	notify_open(p);
	p->pid = fork();
	assert_true(p->pid >= 0);
	if (p->pid == 0)
		process_exec(p, arguments);
}

/* In the directory of an earlier one, or one of its own. */
static void process_start_in(struct process *p, const struct scratch *scratch, const char *option,
			     const char *value)
{
	char text[8192], path[256], here[4096];

	memset(p, 0, sizeof(*p));
	if (scratch)
		p->scratch = *scratch;
	else
		scratch_create(&p->scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&p->scratch, "out.mp4"));
	assert_non_null(getcwd(here, sizeof(here)));
	(void)snprintf(text, sizeof(text), config, here, path);
	process_start_with(p, text, option, value);
}

static void process_start(struct process *p, const char *option, const char *value)
{
	process_start_in(p, NULL, option, value);
}

static void log_print(struct process *p)
{
	FILE *log = fopen(scratch_path(&p->scratch, "log"), "r");
	char line[512];

	while (log && fgets(line, sizeof(line), log))
		print_message("  %s", line);
	fclosep(&log);
}

static void line_take(struct process *p, const char *line)
{
	if (strncmp(line, "STATUS=", 7) == 0)
		(void)snprintf(p->status, sizeof(p->status), "%s", line + 7);
	if (strncmp(line, "EXTEND_TIMEOUT_USEC=", 20) == 0) {
		p->extended++;
		p->extended_first = p->extended_first || !p->ready;
	}
	if (strcmp(line, "READY=1") == 0) {
		p->ready++;
		p->ready_ns = clock_now_ns();
	}
	if (strcmp(line, "WATCHDOG=1") == 0) {
		p->watchdog++;
		p->watchdog_ns = clock_now_ns();
	}
	p->reloading += strcmp(line, "RELOADING=1") == 0;
	p->stopping += strcmp(line, "STOPPING=1") == 0;
}

static void notify_take(struct process *p, int wait_ms)
{
	struct pollfd fd = { .fd = p->notify, .events = POLLIN };
	char text[1024], *rest, *line;
	ssize_t n;

	if (poll(&fd, 1, wait_ms) <= 0)
		return;
	while ((n = recv(p->notify, text, sizeof(text) - 1, 0)) > 0) {
		text[n] = '\0';
		for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
			line_take(p, line);
	}
}

/* Until a counter reaches a value. */
static void wait_for(struct process *p, const int64_t *counter, int64_t value, double seconds,
		     const char *what)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);

	while (*counter < value && clock_now_ns() < deadline_ns) {
		if (waitpid(p->pid, NULL, WNOHANG) == p->pid) {
			log_print(p);
			fail_msg("the process ended while %s was waited for", what);
		}
		notify_take(p, 100);
	}
	if (*counter < value) {
		log_print(p);
		fail_msg("%s did not come within %.0f s", what, seconds);
	}
}

static void wait_seconds(struct process *p, double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);

	while (clock_now_ns() < deadline_ns)
		notify_take(p, 100);
}

static void wait_status(struct process *p, const char *start, double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);

	while (strncmp(p->status, start, strlen(start)) != 0) {
		notify_take(p, 100);
		if (clock_now_ns() > deadline_ns) {
			log_print(p);
			fail_msg("status is \"%s\", not \"%s…\"", p->status, start);
		}
	}
}

static int process_end(struct process *p, int signal_number)
{
	const int64_t start_ns = clock_now_ns();
	int status = 0;

	assert_int_equal(kill(p->pid, signal_number), 0);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	notify_take(p, 0);
	print_message("signal %d: gone after %.2f s, status %#x\n", signal_number,
		      (double)(clock_now_ns() - start_ns) / 1e9, (unsigned int)status);
	return status;
}

static void process_finish(struct process *p)
{
	(void)close(p->notify);
	scratch_remove(&p->scratch);
}

/* The film that was recorded can be read to its end. */
static int64_t film_frames(struct process *p, const char *name)
{
	const struct media_source_wish wish = { .path = scratch_path(&p->scratch, name),
						.threads = 1 };
	struct media_source *source;
	struct media_picture picture;
	struct sana_error error = { 0 };
	int64_t frames = 0;
	int r;

	r = media_source_open(&wish, &source, &error);
	if (r < 0)
		fail_msg("%s: %s", name, error.text);
	while ((r = media_source_read(source, &picture, &error)) > 0)
		frames++;
	(void)media_source_close(source);
	if (r < 0)
		print_message("%s: %s\n", name, error.text);
	return frames;
}

static void test_life(void **state)
{
	struct process p;
	int64_t frames;
	int status;

	(void)state;
	process_start(&p, NULL, NULL);
	wait_for(&p, &p.ready, 1, START_S, "READY=1");
	assert_true(p.extended_first);
	wait_status(&p, "running", 30 * SLOW);
	wait_for(&p, &p.watchdog, 4, 10 * SLOW, "WATCHDOG=1");
	print_message("ready; %lld extensions; %lld signs of life; status \"%s\"\n",
		      (long long)p.extended, (long long)p.watchdog, p.status);
	assert_int_equal(kill(p.pid, SIGHUP), 0);
	wait_for(&p, &p.reloading, 1, 5 * SLOW, "RELOADING=1");
	wait_for(&p, &p.ready, 2, 5 * SLOW, "READY=1 after the reload");
	/* A configuration with a mistake changes nothing. */
	scratch_write_text(&p.scratch, "conf", "source = {{ broken");
	assert_int_equal(kill(p.pid, SIGHUP), 0);
	wait_for(&p, &p.ready, 3, 5 * SLOW, "READY=1 after a reload that failed");
	wait_status(&p, "running", 10 * SLOW);
	status = process_end(&p, SIGTERM);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(p.stopping, 1);
	frames = film_frames(&p, "out.mp4");
	print_message("recorded %lld frames\n", (long long)frames);
	assert_true(frames > 24);
	process_finish(&p);
}

/* The test switch: the engine hangs, and nothing feeds the watchdog any more. */
static void test_hang(void **state)
{
	struct process p;
	int64_t fed;

	(void)state;
	process_start(&p, "--test-hang-after", "40");
	wait_for(&p, &p.ready, 1, START_S, "READY=1");
	wait_for(&p, &p.watchdog, 1, 10 * SLOW, "WATCHDOG=1");
	for (;;) {
		fed = p.watchdog;
		wait_seconds(&p, 2);
		if (p.watchdog == fed)
			break;
		if (clock_now_ns() - p.ready_ns > 60 * SLOW * CLOCK_SECOND_NS) {
			log_print(&p);
			fail_msg("the watchdog is fed by a hung engine");
		}
	}
	print_message("%lld signs of life, the last %.1f s ago\n", (long long)p.watchdog,
		      (double)(clock_now_ns() - p.watchdog_ns) / 1e9);
	/* What systemd does next. */
	assert_true(WIFSIGNALED(process_end(&p, SIGKILL)));
	process_finish(&p);
}

/* Killed in the middle: the recording is playable up to there. */
static void test_killed(void **state)
{
	struct process p, again;
	int64_t frames;

	(void)state;
	process_start(&p, NULL, NULL);
	wait_for(&p, &p.ready, 1, START_S, "READY=1");
	wait_status(&p, "running", 30 * SLOW);
	wait_seconds(&p, 6);
	assert_true(WIFSIGNALED(process_end(&p, SIGKILL)));
	frames = film_frames(&p, "out.partial.mp4");
	print_message("playable: %lld frames\n", (long long)frames);
	assert_true(frames > 24);
	/* Started again, as systemd does: what was recorded stays, the new recording has another name. */
	(void)close(p.notify);
	scratch_delete(&p.scratch, "notify");
	process_start_in(&again, &p.scratch, NULL, NULL);
	wait_for(&again, &again.ready, 1, START_S, "READY=1");
	wait_status(&again, "running", 30 * SLOW);
	assert_true(WIFEXITED(process_end(&again, SIGTERM)));
	assert_int_equal(film_frames(&again, "out.partial.mp4"), frames);
	print_message("and again: %lld frames\n", (long long)film_frames(&again, "out-2.mp4"));
	assert_true(film_frames(&again, "out-2.mp4") > 0);
	process_finish(&again);
}

/* What starting again cannot mend ends with 78, which the unit does not start again. */
static void test_wrong(void **state)
{
	static const char *const texts[] = {
		"prompt = { initial = \"make it longer\"; max-bytes = 4; };\n",
		"source = { identity = \"radio:1\"; };\n",
		/* Not a mistake of the file's form. */
		"prompt = { initial = \"   \"; };\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct process p = { 0 };
		int status = 0;

		scratch_create(&p.scratch);
		process_start_with(&p, texts[i], NULL, NULL);
		assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
		log_print(&p);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 78);
		process_finish(&p);
	}
}

/* Starts a process with an edited copy of the demo model (`edit`: shell, in its directory); its exit status. */
static int status_of_model(const char *edit)
{
	struct process p = { 0 };
	char text[8192], here[4096];
	int status = 0;

	assert_non_null(getcwd(here, sizeof(here)));
	scratch_create(&p.scratch);
	(void)snprintf(text, sizeof(text),
		       "mkdir %s/model && cd %s/model && cp -r %s/models/demo/. . && %s",
		       p.scratch.path, p.scratch.path, here, edit);
	assert_int_equal(system(text), 0);
	(void)snprintf(text, sizeof(text), "model = { directory = \"%s/model\"; };\n",
		       p.scratch.path);
	process_start_with(&p, text, NULL, NULL);
	assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
	print_message("%s:\n", edit);
	log_print(&p);
	process_finish(&p);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* After a process that lost its GPU "auto" waits for it, and once it is there the choice is free again. */
static void test_backend_before(void **state)
{
	const int64_t deadline_ns = clock_now_ns() + START_S * CLOCK_SECOND_NS;
	struct process p = { 0 };
	char text[8192], here[4096];
	FILE *left;

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	(void)snprintf(text, sizeof(text),
		       "model = { directory = \"%s/models/demo\"; width = 64; height = 48; };\n",
		       here);
	scratch_create(&p.scratch);
	scratch_write_text(&p.scratch, "backend-before", "cuda");
	assert_int_equal(setenv("RUNTIME_DIRECTORY", p.scratch.path, 1), 0);
	process_start_with(&p, text, NULL, NULL);
	assert_int_equal(unsetenv("RUNTIME_DIRECTORY"), 0);
	while (!p.ready && !strstr(p.status, "backend.") && clock_now_ns() < deadline_ns &&
	       waitpid(p.pid, NULL, WNOHANG) == 0)
		notify_take(&p, 100);
	left = fopen(scratch_path(&p.scratch, "backend-before"), "r");
	print_message("ready %lld; \"%s\"\n", (long long)p.ready, p.status);
	log_print(&p);
	if (p.ready) {
		assert_null(left);
	} else {
		assert_non_null(strstr(p.status, "\"cuda\""));
		assert_non_null(left);
		assert_non_null(fgets(text, sizeof(text), left));
		assert_string_equal(text, "cuda");
	}
	fclosep(&left);
	assert_true(WIFEXITED(process_end(&p, SIGTERM)));
	process_finish(&p);
}

/* A model that is not there yet may be there at the next start; one that is wrong stays wrong. */
static void test_model(void **state)
{
	(void)state;
	/* A mount point before the mount. */
	assert_int_equal(status_of_model("rm -r ./*"), 1);
	assert_int_equal(status_of_model("rm -r vae"), 1);
	assert_int_equal(status_of_model("cd .. && rm -r model"), 1);
	assert_int_equal(status_of_model("echo '{ \"width\": 64 }' > stream.json"), 78);
	assert_int_equal(status_of_model("echo '{ \"width\": ' > stream.json"), 78);
}

/* Weights that are not there: nobody is asked to wait for ever, and the status says why. */
static void test_no_weights(void **state)
{
	struct process p = { 0 };
	char text[8192], here[4096];
	int64_t extended;

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	scratch_create(&p.scratch);
	(void)snprintf(text, sizeof(text),
		       "mkdir %s/model && cd %s/model && cp -r %s/models/demo/. . && rm "
		       "dit/*.safetensors",
		       p.scratch.path, p.scratch.path, here);
	assert_int_equal(system(text), 0);
	(void)snprintf(text, sizeof(text),
		       "model = { directory = \"%s/model\"; threads = 1; width = 64; height = 48; "
		       "};\n",
		       p.scratch.path);
	process_start_with(&p, text, NULL, NULL);
	wait_seconds(&p, 4 * SLOW);
	extended = p.extended;
	wait_seconds(&p, 6);
	print_message("%lld extensions, then %lld; \"%s\"\n", (long long)extended,
		      (long long)(p.extended - extended), p.status);
	assert_int_equal(p.ready, 0);
	assert_int_equal(p.extended, extended);
	assert_non_null(strstr(p.status, "safetensors"));
	assert_true(WIFEXITED(process_end(&p, SIGTERM)));
	process_finish(&p);
}

/* A pipe that nobody writes to as a source: said at once, the daemon lives and ends when it is told to. */
static void test_pipe(void **state)
{
	struct process p = { 0 };
	char text[8192], here[4096], path[256];
	int64_t fed, ends_ns;
	int status;

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	scratch_create(&p.scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&p.scratch, "pipe.mp4"));
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)snprintf(
		text, sizeof(text),
		"model = { directory = \"%s/models/demo\"; threads = 1; width = 64; height = "
		"48; };\nsource = { identity = \"file:%s\"; };\noutput = { sinks = []; };\n",
		here, path);
	process_start_with(&p, text, NULL, NULL);
	wait_for(&p, &p.ready, 1, START_S, "READY=1");
	wait_status(&p, "degraded: source.open: ", 10 * SLOW);
	assert_non_null(strstr(p.status, "this is a pipe"));
	fed = p.watchdog;
	wait_for(&p, &p.watchdog, fed + 2, 10 * SLOW, "WATCHDOG=1");
	print_message("\"%s\", %lld signs of life\n", p.status, (long long)p.watchdog);
	ends_ns = clock_now_ns();
	status = process_end(&p, SIGTERM);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(clock_now_ns() - ends_ns < 5 * SLOW * CLOCK_SECOND_NS);
	process_finish(&p);
}

/* What the manager is told about is no command to it. */
static void test_status_is_one_line(void **state)
{
	struct process p = { 0 };
	char text[1024] = "";
	ssize_t n;

	(void)state;
	scratch_create(&p.scratch);
	notify_open(&p);
	(void)setenv("NOTIFY_SOCKET", scratch_path(&p.scratch, "notify"), 1);
	notify_status("degraded: /x\nWATCHDOG=trigger\rSTOPPING=1\x1b[2J \xff: cannot open");
	(void)unsetenv("NOTIFY_SOCKET");
	n = recv(p.notify, text, sizeof(text) - 1, 0);
	print_message("%zd bytes: %s\n", n, text);
	assert_string_equal(text,
			    "STATUS=degraded: /x?WATCHDOG=trigger?STOPPING=1?[2J ?: cannot open");
	process_finish(&p);
}

/* A bus that takes connections and answers none. */
static int silent_bus_open(struct scratch *scratch)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char variable[160];
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/bus", scratch->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 8), 0);
	(void)snprintf(variable, sizeof(variable), "unix:path=%s", address.sun_path);
	(void)setenv("DBUS_SESSION_BUS_ADDRESS", variable, 1);
	return fd;
}

/* It keeps the daemon neither from its start nor from its stream nor from its end. */
static void test_silent_bus(void **state)
{
	const char *before = getenv("DBUS_SESSION_BUS_ADDRESS");
	char *address = before ? strdup(before) : NULL;
	struct pollfd waiting = { .events = POLLIN };
	struct scratch scratch;
	struct process p;
	int64_t end_ns;

	(void)state;
	scratch_create(&scratch);
	waiting.fd = silent_bus_open(&scratch);
	process_start_in(&p, &scratch, NULL, NULL);
	wait_for(&p, &p.ready, 1, START_S, "READY=1");
	wait_status(&p, "running", 30 * SLOW);
	wait_for(&p, &p.watchdog, 4, 10 * SLOW, "WATCHDOG=1");
	assert_int_equal(poll(&waiting, 1, 0), 1);
	end_ns = clock_now_ns();
	assert_int_equal(process_end(&p, SIGTERM), 0);
	assert_true(clock_now_ns() - end_ns < 10 * SLOW * CLOCK_SECOND_NS);
	assert_true(film_frames(&p, "out.mp4") > 0);
	(void)close(waiting.fd);
	process_finish(&p);
	(void)unsetenv("DBUS_SESSION_BUS_ADDRESS");
	if (address)
		(void)setenv("DBUS_SESSION_BUS_ADDRESS", address, 1);
	free(address);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),	   cmocka_unit_test(test_hang),
		cmocka_unit_test(test_killed),	   cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_model),	   cmocka_unit_test(test_backend_before),
		cmocka_unit_test(test_no_weights), cmocka_unit_test(test_status_is_one_line),
		cmocka_unit_test(test_pipe),	   cmocka_unit_test(test_silent_bus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
