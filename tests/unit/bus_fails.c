/*
 * The real process on a bus that fails: one that goes away, one that stops, one that gives the name to
 * another.
 */
#include "tests/common/bus_rig.h"

#include "base/clock.h"
#include "base/util.h"
#include "dbus/names.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the daemon tells a service manager from here on; it must be read, or the daemon waits. */
static int notify_open(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/notify",
		       bus_rig.scratch.path);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void notify_close(int fd)
{
	(void)close(fd);
	(void)unlink(scratch_path(&bus_rig.scratch, "notify"));
}

/* Until the watchdog was fed so often; the longest it waited, in ns. */
static int64_t watchdog_wait(int fd, int times)
{
	struct pollfd waiting = { .fd = fd, .events = POLLIN };
	int64_t last_ns = clock_now_ns(), longest_ns = 0;
	char text[1024];

	while (times > 0) {
		ssize_t n;

		if (poll(&waiting, 1, 60000) <= 0)
			return INT64_MAX;
		n = recv(fd, text, sizeof(text) - 1, 0);
		text[MAX_OF(n, 0)] = '\0';
		longest_ns = MAX_OF(longest_ns, clock_now_ns() - last_ns);
		if (strcmp(text, "WATCHDOG=1") != 0)
			continue;
		last_ns = clock_now_ns();
		times--;
	}
	return longest_ns;
}

static int on_reset(sd_bus_message *reply, void *context, sd_bus_error *error)
{
	const sd_bus_error *said = sd_bus_message_get_error(reply);

	(void)error;
	(void)snprintf(context, 128, "%s", said ? said->name : "done");
	return 0;
}

static void bus_ping(sd_bus *connection)
{
	assert_true(sd_bus_call_method(connection, "org.freedesktop.DBus", "/org/freedesktop/DBus",
				       "org.freedesktop.DBus.Peer", "Ping", NULL, NULL, "") >= 0);
}

/* The daemon has a call before it, and then the bus does not say any more whose it is. */
static void call_and_stop(sd_bus *connection, char *answer)
{
	assert_int_equal(kill(bus_rig.daemon, SIGSTOP), 0);
	assert_true(sd_bus_call_method_async(connection, NULL, BUS_NAME, BUS_PATH, BUS_INTERFACE,
					     "Reset", on_reset, answer, "") >= 0);
	/* The second one is answered after the call was passed on. */
	bus_ping(connection);
	bus_ping(connection);
	assert_int_equal(kill(bus_rig.bus, SIGSTOP), 0);
	assert_int_equal(waitpid(bus_rig.bus, NULL, WUNTRACED), bus_rig.bus);
	assert_int_equal(kill(bus_rig.daemon, SIGCONT), 0);
}

/* Stopped in the middle: the loop goes on, the caller is refused, and all is well once it runs again. */
static void the_bus_stops_answering(void **state)
{
	const uint64_t before = bus_rig_statistic("frames-output");
	const int notify = notify_open();
	char answer[128] = "";
	sd_bus *caller = NULL;
	int64_t longest_ns;
	uint64_t after;

	(void)state;
	bus_rig_connect(&caller);
	call_and_stop(caller, answer);
	longest_ns = watchdog_wait(notify, 4);
	notify_close(notify);
	assert_int_equal(kill(bus_rig.bus, SIGCONT), 0);
	for (int i = 0; i < 100 * BUS_RIG_SLOW && !*answer; i++)
		if (sd_bus_process(caller, NULL) == 0)
			(void)sd_bus_wait(caller, 100000);
	after = bus_rig_statistic("frames-output");
	printf("  the watchdog waited %.2f s at the most; %llu pictures, then %llu; %s\n",
	       (double)longest_ns / 1e9, (unsigned long long)before, (unsigned long long)after,
	       answer);
	assert_true(longest_ns < 10 * CLOCK_SECOND_NS);
	assert_string_equal(answer, BUS_ERROR "NotAuthorized");
	assert_true(after > before + 24);
	assert_string_equal(bus_rig_call(caller, "Reset", ""), "");
	assert_int_equal(bus_rig_statistic("bus-disconnects"), 0);
	(void)sd_bus_close_unref(caller);
}

static void bus_end(void)
{
	bus_rig.connection = sd_bus_close_unref(bus_rig.connection);
	bus_rig_stop(&bus_rig.bus);
	(void)unlink(scratch_path(&bus_rig.scratch, "socket"));
}

/* The bus goes away and comes back: the stream goes on and can be reached again. */
static void the_bus_comes_back(void **state)
{
	uint64_t before, after;

	(void)state;
	before = bus_rig_statistic("frames-output");
	bus_end();
	bus_rig_sleep_ms(1000);
	bus_rig_start_bus();
	bus_rig_connect(&bus_rig.connection);
	bus_rig_wait_state("running", 20 * BUS_RIG_SLOW);
	after = bus_rig_statistic("frames-output");
	printf("  %llu pictures before, %llu after; disconnects %llu\n", (unsigned long long)before,
	       (unsigned long long)after, (unsigned long long)bus_rig_statistic("bus-disconnects"));
	assert_true(after > before + 10);
	assert_int_equal(bus_rig_statistic("bus-disconnects"), 1);
}

static int on_owner(sd_bus_message *m, void *context, sd_bus_error *error)
{
	const char *name, *old, *new;

	(void)error;
	if (sd_bus_message_read(m, "sss", &name, &old, &new) >= 0)
		*(int *)context += *name == ':' && *new;
	return 0;
}

static int log_count(const char *text)
{
	FILE *log = fopen(scratch_path(&bus_rig.scratch, "log"), "r");
	char line[512];
	int count = 0;

	assert_non_null(log);
	while (fgets(line, sizeof(line), log))
		count += strstr(line, text) != NULL;
	(void)fclose(log);
	return count;
}

/* Said once, however often it is tried; and the name is taken when it can be had. */
static void the_name_is_taken(void **state)
{
	int attempts = 0;

	(void)state;
	assert_int_equal(kill(bus_rig.daemon, SIGSTOP), 0);
	bus_end();
	bus_rig_start_bus();
	bus_rig_connect(&bus_rig.connection);
	assert_true(sd_bus_request_name(bus_rig.connection, BUS_NAME, 0) > 0);
	assert_true(sd_bus_match_signal(bus_rig.connection, NULL, "org.freedesktop.DBus", NULL,
					NULL, "NameOwnerChanged", on_owner, &attempts) >= 0);
	assert_int_equal(kill(bus_rig.daemon, SIGCONT), 0);
	for (int i = 0; i < 300 * BUS_RIG_SLOW && attempts < 2; i++)
		if (sd_bus_process(bus_rig.connection, NULL) == 0)
			(void)sd_bus_wait(bus_rig.connection, 100000);
	bus_rig_sleep_ms(200);
	printf("  %d attempts, said %d times\n", attempts, log_count("is taken"));
	assert_true(attempts >= 2);
	assert_int_equal(log_count("is taken"), 1);
	assert_true(sd_bus_release_name(bus_rig.connection, BUS_NAME) >= 0);
	bus_rig_wait_state("running", 20 * BUS_RIG_SLOW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bus_stops_answering),
		cmocka_unit_test(the_bus_comes_back),
		cmocka_unit_test(the_name_is_taken),
	};

	return cmocka_run_group_tests(tests, bus_rig_set_up, bus_rig_tear_down);
}
