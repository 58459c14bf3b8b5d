/*
 * The live stream's state machine over a fake engine and fake devices: states, events, requests, and what
 * a client reads.
 */
#include "tests/common/pipeline_rig.h"

#include "base/log.h"
#include "daemon/stream_options.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "media/source.h"
#include "tests/common/scratch.h"

enum { EVENTS = 512 };

struct live {
	struct fake_devices devices;
	struct live_stream_options options;
	struct live_stream *stream;
	struct live_event event[EVENTS];
	int events;
	struct live_stream_config reloaded;
	int reload_result;
	int taken, dropped; /* by reload_end */
};

static struct live live;

static int check_prompt(void *context, const char *text, struct sana_error *error)
{
	(void)context;
	if (strstr(text, "forbidden"))
		return sana_error_set(error, -EACCES, "prompt.denied", "Not this.");
	return 0;
}

static void reload_end(void *context, bool taken)
{
	(void)context;
	live.taken += taken;
	live.dropped += !taken;
}

static int reload(void *context, struct live_stream_config *ret, struct sana_error *error)
{
	(void)context;
	if (live.reload_result < 0)
		return sana_error_set(error, live.reload_result, "config.mistake", "A mistake.");
	*ret = live.reloaded;
	return 0;
}

static int list(struct media_device *ret, int capacity)
{
	if (capacity > 0)
		ret[0] = (struct media_device){ "v4l2:fake", "A camera", true };
	return 1;
}

static int setup(void **state)
{
	struct live_stream_config *config = &live.options.config;

	(void)state;
	memset(&live, 0, sizeof(live));
	log_set_level(LOG_LEVEL_ERROR);
	fake_engine_init();
	fake_engine.first_frames = 9;
	fake_engine.chunk_frames = 6;
	fake_devices_init(&live.devices);
	pipeline_options_init(&config->pipeline);
	config->pipeline.engine = &fake_engine_api;
	config->pipeline.devices = fake_devices_functions(&live.devices);
	config->pipeline.model.shape = "demo";
	config->pipeline.stream.width = 64;
	config->pipeline.stream.height = 32;
	config->source = "v4l2:fake";
	config->sinks[0] = "loopback:0";
	config->sink_count = 1;
	config->prompt = "make it a negative";
	config->autostart = true;
	live.options.list_sources = live.options.list_sinks = list;
	live.options.check_prompt = check_prompt;
	live.options.reload = reload;
	live.options.reload_end = reload_end;
	return 0;
}

static void start(void)
{
	struct sana_error error = { 0 };

	if (live_stream_create(&live.options, &live.stream, &error) < 0)
		fail_msg("%s", error.text);
	live.reloaded = live.options.config;
}

static int teardown(void **state)
{
	(void)state;
	live.stream = live_stream_destroy(live.stream);
	assert_int_equal(atomic_load(&fake_engine.models), 0);
	return 0;
}

static void drain(void)
{
	struct live_event event;

	while (live_stream_next_event(live.stream, &event))
		if (live.events < EVENTS)
			live.event[live.events++] = event;
}

static void run(double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	struct pollfd fd = { .fd = live_stream_event_fd(live.stream), .events = POLLIN };

	do {
		drain();
		(void)poll(&fd, 1, MIN_OF(clock_poll_ms(deadline_ns), 20));
	} while (clock_now_ns() < deadline_ns);
	drain();
}

static int find(int from, enum live_event_kind kind, const char *name)
{
	for (int i = from; i < live.events; i++)
		if (live.event[i].kind == kind && (!name || strcmp(live.event[i].name, name) == 0))
			return i;
	return -1;
}

static int wait_event(int from, enum live_event_kind kind, const char *name)
{
	const int64_t deadline_ns = clock_now_ns() + 10 * CLOCK_SECOND_NS;

	while (find(from, kind, name) < 0) {
		run(0.02);
		if (clock_now_ns() > deadline_ns)
			fail_msg("no event %d %s", (int)kind, name ? name : "");
	}
	return find(from, kind, name);
}

static void wait_state(enum live_state state)
{
	const int64_t deadline_ns = clock_now_ns() + 10 * CLOCK_SECOND_NS;

	while (live_stream_state(live.stream) != state) {
		run(0.02);
		if (clock_now_ns() > deadline_ns)
			fail_msg("the state is %s, not %s",
				 live_state_name(live_stream_state(live.stream)),
				 live_state_name(state));
	}
	print_message("%s ", live_state_name(state));
}

/* Every state, and from each the way that is documented. */
static void test_states(void **state)
{
	struct sana_error error = { 0 };
	int event;

	(void)state;
	live.options.config.policy = "fp8";
	start();
	assert_int_equal(live_stream_state(live.stream), LIVE_STATE_WARMING);
	(void)wait_event(0, LIVE_EVENT_FAULT, "policy.unsupported");
	wait_state(LIVE_STATE_RUNNING);
	assert_true(live_stream_is_ready(live.stream));
	assert_string_equal(live_stream_backend(live.stream), "cpu");
	assert_string_equal(live_stream_policy(live.stream), "fp32");
	atomic_store(&live.devices.camera.there, false);
	wait_state(LIVE_STATE_DEGRADED);
	event = wait_event(0, LIVE_EVENT_SOURCE_LOST, NULL);
	assert_string_equal(live.event[event].text, "v4l2:fake");
	run(0.5);
	assert_string_equal(live_stream_fault(live.stream), "source.no-device");
	atomic_store(&live.devices.camera.there, true);
	(void)wait_event(event, LIVE_EVENT_SOURCE_RESTORED, NULL);
	wait_state(LIVE_STATE_RUNNING);
	assert_string_equal(live_stream_fault(live.stream), "");
	assert_int_equal(live_stream_pause(live.stream, &error), 0);
	wait_state(LIVE_STATE_PAUSED);
	assert_int_equal(live_stream_resume(live.stream, &error), 0);
	wait_state(LIVE_STATE_WARMING);
	wait_state(LIVE_STATE_RUNNING);
	assert_int_equal(live_stream_set_source(live.stream, "pattern:", &error), 0);
	wait_state(LIVE_STATE_WARMING);
	wait_state(LIVE_STATE_RUNNING);
	assert_int_equal(live_stream_stop(live.stream, &error), 0);
	wait_state(LIVE_STATE_IDLE);
	assert_int_equal(live_stream_pause(live.stream, &error), -ESRCH);
	assert_string_equal(error.name, "stream.idle");
	assert_int_equal(live_stream_start(live.stream, &error), 0);
	wait_state(LIVE_STATE_RUNNING);
	live_stream_shut_down(live.stream);
	wait_state(LIVE_STATE_STOPPING);
	assert_int_equal(live_stream_start(live.stream, &error), -ESHUTDOWN);
	print_message("\n");
}

static void test_requests_are_checked(void **state)
{
	const char *const good[] = { "loopback:1", "file:/film.mp4" };
	const char *const bad[] = { "loopback:1", "elsewhere:" };
	const char *const spoilt[] = {
		"file:/x\nWATCHDOG=trigger\n", "file:/\x1b[2J.mp4", "file:/\x7f.mp4",
		"file:/\xc2\x85.mp4",	       "file:/B\xc3",	    "file:/\xef\xbf\xbe.mp4"
	};
	static char huge[PIPELINE_PROMPT_BYTES + 1], name[PIPELINE_IDENTITY_BYTES + 8] = "v4l2:";
	struct sana_error error = { 0 };
	const char *const *sinks;
	uint64_t ticket;

	(void)state;
	live.options.config.autostart = false;
	start();
	memset(huge, 'a', sizeof(huge) - 1);
	memset(name + 5, 'n', sizeof(name) - 6);
	assert_int_equal(live_stream_set_prompt(live.stream, huge, &ticket, &error), -E2BIG);
	assert_string_equal(error.name, "prompt.too-long");
	assert_int_equal(live_stream_set_prompt(live.stream, " \n", &ticket, &error), -EINVAL);
	assert_string_equal(error.name, "prompt.empty");
	assert_int_equal(live_stream_set_prompt(live.stream, "a forbidden thing", &ticket, &error),
			 -EACCES);
	assert_string_equal(error.name, "prompt.denied");
	assert_string_equal(live_stream_prompt(live.stream), "make it a negative");
	assert_int_equal(live_stream_set_source(live.stream, "/dev/video0", &error), -EINVAL);
	assert_string_equal(error.name, "source.identity");
	assert_int_equal(live_stream_set_source(live.stream, name, &error), -E2BIG);
	assert_int_equal(live_stream_set_sinks(live.stream, bad, 2, &error), -EINVAL);
	assert_string_equal(error.name, "sink.identity");
	for (size_t i = 0; i < ARRAY_SIZE(spoilt); i++) {
		sana_error_clear(&error);
		assert_int_equal(live_stream_set_source(live.stream, spoilt[i], &error), -EINVAL);
		assert_string_equal(error.name, "source.identity");
		assert_int_equal(live_stream_set_sinks(live.stream, &spoilt[i], 1, &error),
				 -EINVAL);
		assert_string_equal(error.name, "sink.identity");
		print_message("%s\n", error.text);
		assert_non_null(strstr(error.text, "control characters"));
	}
	assert_string_equal(live_stream_source(live.stream), "v4l2:fake");
	assert_int_equal(live_stream_sinks(live.stream, &sinks), 1);
	assert_string_equal(sinks[0], "loopback:0");
	assert_int_equal(live_stream_set_sinks(live.stream, good, 2, &error), 0);
	assert_int_equal(live_stream_sinks(live.stream, &sinks), 2);
	assert_string_equal(sinks[1], "file:/film.mp4");
	while (!live_stream_is_ready(live.stream))
		run(0.05);
	assert_int_equal(live_stream_set_policy(live.stream, "fp32", &error), 0);
	assert_int_equal(live_stream_set_policy(live.stream, "nvfp4", &error), -ENOTSUP);
	print_message("%s\n", error.text);
	assert_non_null(strstr(error.text, "fp32"));
}

static void test_prompts(void **state)
{
	struct sana_error error = { 0 };
	uint64_t ticket;
	int event;

	(void)state;
	start();
	event = wait_event(0, LIVE_EVENT_PROMPT_APPLIED, NULL);
	assert_int_equal(live_stream_set_prompt(live.stream, "another", &ticket, &error), 0);
	event = wait_event(event + 1, LIVE_EVENT_PROMPT_APPLIED, NULL);
	assert_int_equal(live.event[event].ticket, ticket);
	atomic_store(&fake_engine.refuses_prompts, true);
	assert_int_equal(live_stream_set_prompt(live.stream, "a third", &ticket, &error), 0);
	assert_string_equal(live_stream_prompt(live.stream), "a third");
	event = wait_event(event + 1, LIVE_EVENT_PROMPT_REFUSED, "prompt.tokens");
	assert_int_equal(live.event[event].ticket, ticket);
	/* The one in force is shown again. */
	assert_string_equal(live_stream_prompt(live.stream), "another");
}

/* What changed in the file is applied, what a client has set since stays; a mistake changes nothing. */
static void test_reload(void **state)
{
	struct sana_error error = { 0 };
	const char *const *sinks;

	(void)state;
	start();
	wait_state(LIVE_STATE_RUNNING);
	assert_int_equal(live_stream_set_source(live.stream, "pattern:", &error), 0);
	assert_int_equal(live_stream_reload(live.stream, &error), 0);
	assert_string_equal(live_stream_source(live.stream), "pattern:");
	live.reloaded.sinks[1] = "loopback:2";
	live.reloaded.sink_count = 2;
	live.reload_result = -EINVAL;
	assert_int_equal(live_stream_reload(live.stream, &error), -EINVAL);
	assert_int_equal(live_stream_sinks(live.stream, &sinks), 1);
	live.reload_result = 0;
	assert_int_equal(live_stream_reload(live.stream, &error), 0);
	assert_int_equal(live_stream_sinks(live.stream, &sinks), 2);
	assert_string_equal(live_stream_source(live.stream), "pattern:");
	live.reloaded.policy = "nvfp4";
	assert_int_equal(live_stream_reload(live.stream, &error), -ENOTSUP);
	assert_string_equal(error.name, "policy.unsupported");
	live.reloaded.policy = "fp32";
	assert_int_equal(live_stream_reload(live.stream, &error), 0);
	/* One mistake, and nothing of it counts: not the source, which comes before it, either. */
	live.taken = live.dropped = 0;
	live.reloaded.source = "v4l2:other";
	live.reloaded.sinks[1] = live.reloaded.sinks[0];
	assert_int_equal(live_stream_reload(live.stream, &error), -EINVAL);
	assert_string_equal(error.name, "sink.twice");
	assert_string_not_equal(live_stream_source(live.stream), "v4l2:other");
	assert_int_equal(live.taken, 0);
	assert_int_equal(live.dropped, 1);
	live.reloaded.sinks[1] = "loopback:2";
	assert_int_equal(live_stream_reload(live.stream, &error), 0);
	assert_string_equal(live_stream_source(live.stream), "v4l2:other");
	assert_int_equal(live.taken, 1);
	print_message("\n");
}

/* A picture twice as wide as ours: source on the left, result on the right. */
static void snapshot_check(const char *path)
{
	const struct media_source_wish wish = { .path = path, .threads = 1 };
	struct media_source *source;
	struct media_picture picture;
	struct sana_error error = { 0 };
	const uint8_t *left, *right;

	if (media_source_open(&wish, &source, &error) < 0 ||
	    media_source_read(source, &picture, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(picture.width, 128);
	assert_int_equal(picture.height, 32);
	left = picture.plane[0];
	right = picture.plane[0] + 3 * 64;
	print_message("left %d,%d,%d right %d,%d,%d\n", left[0], left[1], left[2], right[0],
		      right[1], right[2]);
	assert_memory_equal(left, rig_source, 3);
	assert_memory_equal(right, rig_edited, 3);
	/* Of the same moment. */
	for (int k = 0; k < 3; k++)
		assert_int_equal(left[3 * 60 + k], 255 - right[3 * 60 + k]);
	(void)media_source_close(source);
}

static void test_snapshot(void **state)
{
	struct sana_error error = { 0 };
	struct scratch scratch;
	uint64_t ticket;
	int fd, pipes[2], event;

	(void)state;
	scratch_create(&scratch);
	start();
	wait_state(LIVE_STATE_RUNNING);
	fd = open(scratch_path(&scratch, "snapshot.png"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(live_stream_snapshot(live.stream, fd, &ticket, &error), 0);
	event = wait_event(0, LIVE_EVENT_SNAPSHOT, NULL);
	assert_int_equal(live.event[event].ticket, ticket);
	assert_string_equal(live.event[event].name, "");
	snapshot_check(scratch_path(&scratch, "snapshot.png"));
	/* A reader that is gone: said, nothing more. */
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	(void)close(pipes[0]);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_int_equal(live_stream_snapshot(live.stream, pipes[1], &ticket, &error), 0);
	event = wait_event(event + 1, LIVE_EVENT_SNAPSHOT, NULL);
	assert_string_equal(live.event[event].name, "snapshot.write");
	print_message("%s\n", live.event[event].text);
	scratch_remove(&scratch);
}

/* poll says that it is writable, and a write blocks until somebody reads: as a file on a server that is gone. */
static int stuck_file(void)
{
	const int fd = eventfd(0, EFD_CLOEXEC);
	struct pollfd writable = { .fd = fd, .events = POLLOUT };

	assert_true(fd >= 0);
	assert_int_equal(eventfd_write(fd, UINT64_MAX - 2), 0);
	assert_int_equal(poll(&writable, 1, 0), 1);
	return fd;
}

/* Reads until nobody writes any more and says whether `over`. */
static void stuck_file_drain(int fd, bool (*over)(void))
{
	const int64_t deadline_ns = clock_now_ns() + 10 * CLOCK_SECOND_NS;
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	eventfd_t value;

	while (!over()) {
		if (poll(&readable, 1, 10) > 0)
			(void)eventfd_read(fd, &value);
		assert_true(clock_now_ns() < deadline_ns);
	}
	(void)close(fd);
}

static int threads(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	int count = -1;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		(void)sscanf(line, "Threads: %d", &count);
	(void)fclose(file);
	return count;
}

/* Once those of the test before are gone: a thread counts a little longer than until it is joined. */
static int threads_settled(void)
{
	for (int count = threads();; count = threads()) {
		(void)poll(NULL, 0, 100);
		if (threads() == count)
			return count;
	}
}

static int threads_before;

static bool snapshot_again(void)
{
	struct sana_error error = { 0 };
	uint64_t ticket;
	const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	const int r = live_stream_snapshot(live.stream, fd, &ticket, &error);

	assert_true(r == 0 || r == -EBUSY);
	return r == 0;
}

static bool threads_ended(void)
{
	return threads() == threads_before;
}

static int stuck_wait(int from)
{
	const int64_t deadline_ns = clock_now_ns() + 10 * CLOCK_SECOND_NS;

	while (find(from, LIVE_EVENT_SNAPSHOT, NULL) < 0) {
		(void)live_stream_progress(live.stream);
		run(0.02);
		assert_true(clock_now_ns() < deadline_ns);
	}
	return find(from, LIVE_EVENT_SNAPSHOT, NULL);
}

/*
 * A file that takes nothing: the caller is answered, further ones are told why not, all is well once it takes
 * something; and it does not keep the stream from its end.
 */
static void test_stuck_snapshot(void **state)
{
	struct sana_error error = { 0 };
	uint64_t ticket;
	int file, event;
	int64_t end_ns;

	(void)state;
	threads_before = threads_settled();
	live.options.config.pipeline.snapshot_ns = CLOCK_SECOND_NS / 5;
	start();
	wait_state(LIVE_STATE_RUNNING);
	file = stuck_file();
	assert_int_equal(live_stream_snapshot(live.stream, dup(file), &ticket, &error), 0);
	event = stuck_wait(0);
	print_message("%s\n", live.event[event].text);
	assert_int_equal(live.event[event].ticket, ticket);
	assert_string_equal(live.event[event].name, "snapshot.write");
	assert_int_equal(live_stream_snapshot(live.stream, dup(file), &ticket, &error), -EBUSY);
	print_message("%s\n", error.text);
	assert_non_null(strstr(error.text, "file system"));
	stuck_file_drain(file, snapshot_again);
	event = wait_event(event + 1, LIVE_EVENT_SNAPSHOT, NULL);
	assert_int_equal(live.event[event].ticket, ticket + 1);
	assert_string_equal(live.event[event].name, "");
	file = stuck_file();
	assert_int_equal(live_stream_snapshot(live.stream, dup(file), &ticket, &error), 0);
	(void)stuck_wait(event + 1);
	end_ns = clock_now_ns();
	live.stream = live_stream_destroy(live.stream);
	print_message("the end took %.2f s\n", (double)(clock_now_ns() - end_ns) / 1e9);
	assert_true(clock_now_ns() - end_ns < 8 * CLOCK_SECOND_NS);
	/* The thread frees what it had. */
	assert_int_equal(threads(), threads_before + 1);
	stuck_file_drain(file, threads_ended);
}

/* Keys are unique; the counters move. */
static void test_statistics(void **state)
{
	struct live_statistic list[160];
	struct live_device device[8];
	char line[256];
	uint64_t shown = 0;
	int count;

	(void)state;
	start();
	wait_state(LIVE_STATE_RUNNING);
	run(2.2);
	count = live_stream_statistics(live.stream, list, ARRAY_SIZE(list));
	assert_in_range(count, 30, (int)ARRAY_SIZE(list) - 1);
	for (int i = 0; i < count; i++) {
		for (int j = 0; j < i; j++)
			assert_string_not_equal(list[i].name, list[j].name);
		if (strcmp(list[i].name, "frames-shown") == 0)
			shown = list[i].value;
	}
	live_stream_describe(live.stream, line, sizeof(line));
	run(1.1);
	live_stream_describe(live.stream, line, sizeof(line));
	print_message("%d statistics; shown %llu; \"%s\"\n", count, (unsigned long long)shown,
		      line);
	assert_true(shown > 24);
	assert_int_equal(strncmp(line, "running: 2", 10), 0);
	assert_in_range(live_stream_latency_ns(live.stream), CLOCK_SECOND_NS / 5, CLOCK_SECOND_NS);
	assert_int_equal(live_stream_list_sources(live.stream, device, 8), 1);
	assert_string_equal(device[0].identity, "v4l2:fake");
	assert_int_equal(live_stream_list_policies(live.stream, device, 8), 4);
	assert_true(device[0].present && !device[3].present);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_states, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_prompts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stuck_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
