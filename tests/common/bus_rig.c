/* The real process on a bus of its own. */
#include "tests/common/bus_rig.h"

#include "base/util.h"
#include "dbus/names.h"
#include "tests/common/small_model.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77 };

struct bus_rig bus_rig;

/* The bus lets every user in; who may do what is the service's own business. */
static const char bus_config[] =
	"<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" "
	"\"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>custom</type>"
	"<listen>unix:path=%s</listen><auth>EXTERNAL</auth><policy context=\"default\">"
	"<allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\" eavesdrop=\"false\"/>"
	"<allow receive_sender=\"*\"/></policy></busconfig>";

static const char daemon_config[] =
	"model = { directory = \"%s\"; threads = 1; width = 64; height = 48; };\n"
	"source = { identity = \"pattern:\"; };\n"
	"prompt = { initial = \"invert the colors\"; deny-list = \"%s/deny\"; };\n"
	"output = { sinks = [ \"file:%s/out.y4m\" ]; };\n"
	"audit = { log = \"%s/audit\"; };\n"
	"bus = { group = \"no-such-group\"; calls-per-second = 200; call-burst = 300;\n"
	"        prompts-per-minute = 600; prompt-burst = 20; };\n";

static pid_t start(char *const arguments[], const char *log)
{
	const pid_t pid = fork();
	int fd;

	assert_true(pid >= 0);
	if (pid)
		return pid;
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	(void)dup2(fd, STDERR_FILENO);
	(void)dup2(fd, STDOUT_FILENO);
	(void)execvp(arguments[0], arguments);
	_exit(127);
}

void bus_rig_stop(pid_t *pid)
{
	if (*pid <= 0)
		return;
	(void)kill(*pid, SIGTERM);
	(void)kill(*pid, SIGCONT); /* a test that failed may have left it stopped */
	(void)waitpid(*pid, NULL, 0);
	*pid = 0;
}

void bus_rig_sleep_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

void bus_rig_start_bus(void)
{
	char config[300], log[300];

	(void)snprintf(config, sizeof(config), "--config-file=%s/bus.conf", bus_rig.scratch.path);
	(void)snprintf(log, sizeof(log), "%s/bus.log", bus_rig.scratch.path);
	bus_rig.bus =
		start((char *[]){ "dbus-daemon", config, "--nofork", "--nopidfile", NULL }, log);
}

void bus_rig_connect(sd_bus **ret)
{
	int r = -1;

	for (int i = 0; i < 100 && r < 0; i++) {
		*ret = NULL;
		r = sd_bus_new(ret);
		if (r >= 0)
			r = sd_bus_set_address(*ret, bus_rig.address);
		if (r >= 0)
			r = sd_bus_set_bus_client(*ret, 1);
		if (r >= 0)
			r = sd_bus_start(*ret);
		if (r < 0) {
			*ret = sd_bus_unref(*ret);
			bus_rig_sleep_ms(100);
		}
	}
	assert_true(r >= 0);
}

static void daemon_start(void)
{
	const char *build = getenv("BUILD");
	char program[256], config[300], log[300];

	(void)snprintf(program, sizeof(program), "%s/bin/sana-streamd", build ? build : "build");
	(void)snprintf(config, sizeof(config), "%s/conf", bus_rig.scratch.path);
	(void)snprintf(log, sizeof(log), "%s/log", bus_rig.scratch.path);
	/* Whoever wants to hear it binds it (notify_open). */
	(void)setenv("NOTIFY_SOCKET", scratch_path(&bus_rig.scratch, "notify"), 1);
	bus_rig.daemon = start((char *[]){ program, "--config", config, "--session", NULL }, log);
	(void)unsetenv("NOTIFY_SOCKET");
}

const char *bus_rig_property(const char *name)
{
	static char text[512];
	char *value = NULL;

	text[0] = '\0';
	if (sd_bus_get_property_string(bus_rig.connection, BUS_NAME, BUS_PATH, BUS_INTERFACE, name,
				       NULL, &value) >= 0)
		(void)snprintf(text, sizeof(text), "%s", value);
	free(value);
	return text;
}

void bus_rig_wait_state(const char *wanted, int seconds)
{
	for (int i = 0; i < seconds * 10; i++) {
		while (sd_bus_process(bus_rig.connection, NULL) > 0)
			;
		if (strcmp(bus_rig_property("State"), wanted) == 0)
			return;
		bus_rig_sleep_ms(100);
	}
	fail_msg("the state is \"%s\" and not \"%s\"", bus_rig_property("State"), wanted);
}

/* Its directory; "": the demo model. */
static const char *model_make(void)
{
	static struct scratch model;

	if (BUS_RIG_SLOW == 1)
		return "";
	assert_true(snprintf(model.path, sizeof(model.path), "%s/model", bus_rig.scratch.path) <
		    (int)sizeof(model.path));
	assert_int_equal(mkdir(model.path, 0755), 0);
	small_model_write_whole(&model, 64, 48, "models/demo/text_encoder/tokenizer.model");
	return model.path;
}

int bus_rig_set_up(void **state)
{
	char text[2048];

	(void)state;
	if (system("dbus-daemon --version >/dev/null 2>&1") != 0) {
		printf("skipped: there is no dbus-daemon\n");
		_exit(EXIT_SKIPPED);
	}
	scratch_create(&bus_rig.scratch);
	/* A caller of another user must be able to reach the socket. */
	(void)chmod(bus_rig.scratch.path, 0755);
	(void)snprintf(text, sizeof(text), "%s", scratch_path(&bus_rig.scratch, "socket"));
	(void)snprintf(bus_rig.address, sizeof(bus_rig.address), "unix:path=%.100s", text);
	(void)snprintf(text, sizeof(text), bus_config, scratch_path(&bus_rig.scratch, "socket"));
	scratch_write_text(&bus_rig.scratch, "bus.conf", text);
	scratch_write_text(&bus_rig.scratch, "deny", "secret\n");
	(void)snprintf(text, sizeof(text), daemon_config, model_make(), bus_rig.scratch.path,
		       bus_rig.scratch.path, bus_rig.scratch.path);
	scratch_write_text(&bus_rig.scratch, "conf", text);
	(void)setenv("DBUS_SESSION_BUS_ADDRESS", bus_rig.address, 1);
	bus_rig_start_bus();
	bus_rig_connect(&bus_rig.connection);
	daemon_start();
	bus_rig_wait_state("running", BUS_RIG_START_S);
	return 0;
}

int bus_rig_tear_down(void **state)
{
	(void)state;
	bus_rig_stop(&bus_rig.daemon);
	bus_rig.connection = sd_bus_close_unref(bus_rig.connection);
	bus_rig_stop(&bus_rig.bus);
	scratch_remove(&bus_rig.scratch);
	return 0;
}

const char *bus_rig_call(sd_bus *connection, const char *method, const char *types, ...)
{
	static char name[128];
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *call = NULL, *reply = NULL;
	const char *dot;
	va_list list;
	int r;

	name[0] = '\0';
	va_start(list, types);
	r = sd_bus_message_new_method_call(connection, &call, BUS_NAME, BUS_PATH, BUS_INTERFACE,
					   method);
	if (r >= 0 && *types)
		r = sd_bus_message_appendv(call, types, list);
	va_end(list);
	if (r >= 0)
		r = sd_bus_call(connection, call, 0, &error, &reply);
	if (r < 0) {
		dot = error.name ? strrchr(error.name, '.') : NULL;
		(void)snprintf(name, sizeof(name), "%s", dot ? dot + 1 : strerror(-r));
	}
	sd_bus_error_free(&error);
	(void)sd_bus_message_unref(call);
	(void)sd_bus_message_unref(reply);
	return name;
}

uint64_t bus_rig_statistic(const char *wanted)
{
	sd_bus_message *reply = NULL;
	const char *name, *type;
	uint64_t value, found = UINT64_MAX;

	if (sd_bus_call_method(bus_rig.connection, BUS_NAME, BUS_PATH, BUS_INTERFACE,
			       "GetStatistics", NULL, &reply, "") < 0)
		return found;
	(void)sd_bus_message_enter_container(reply, 'a', "{sv}");
	while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
		(void)sd_bus_message_read(reply, "s", &name);
		(void)sd_bus_message_peek_type(reply, NULL, &type);
		if (strcmp(type, "t") == 0) {
			(void)sd_bus_message_read(reply, "v", "t", &value);
			if (strcmp(name, wanted) == 0)
				found = value;
		} else {
			(void)sd_bus_message_skip(reply, "v");
		}
		(void)sd_bus_message_exit_container(reply);
	}
	(void)sd_bus_message_unref(reply);
	return found;
}
