/*
 * The live stream for a long time: test pattern, demo model, a sink, prompts and snapshots now and then.
 * Memory and descriptors stay as they are, nothing is allocated in the frame path, the age of frames at
 * presentation does not change. 60 seconds; with SANA_SOAK=1 for SANA_SOAK_SECONDS (1800).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/stream_options.h"
#include "tests/common/fake_devices.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/common/allocations.h"

enum {
	SHORT_SECONDS = 60,
	SOAK_SECONDS = 1800,
	LATENCY_SECONDS = 600, /* from here on the age must stay within 5 % */
	TENTHS = 10,
	SAMPLES = 100000, /* one a second, of each tenth */
	WIDTH = 64,
	HEIGHT = 48,
	DISTURB_SECONDS = 60,
	QUIET_SECONDS = 10,
	/* A page here and there: what the allocator and stacks touch late. */
	RSS_SLACK_BYTES = 512 << 10,
};

struct soak {
	struct fake_devices devices;
	struct live_stream *stream;
	int64_t start_ns, length_ns;
	int64_t sample[SAMPLES];
	int samples;
	int64_t age_p99_ns[TENTHS], rss_bytes[TENTHS];
	int descriptors[TENTHS];
	uint64_t allocations, applied, snapshots, shown;
};

static int64_t seconds_wanted(void)
{
	const char *soak = getenv("SANA_SOAK"), *text = getenv("SANA_SOAK_SECONDS");

	if (!soak || strcmp(soak, "1") != 0)
		return SHORT_SECONDS;
	return text ? MAX_OF(atoi(text), 20) : SOAK_SECONDS;
}

static int64_t rss_bytes(void)
{
	char text[128] = "";
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	(void)fclose(file);
	assert_int_equal(sscanf(text, "%*s %ld", &pages), 1);
	return pages * sysconf(_SC_PAGESIZE);
}

static int descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = -3; /* ".", "..", the directory itself */

	assert_non_null(directory);
	while (readdir(directory))
		count++;
	(void)closedir(directory);
	return count;
}

static uint64_t statistic(struct soak *s, const char *name)
{
	struct live_statistic list[128];
	const int count = live_stream_statistics(s->stream, list, ARRAY_SIZE(list));

	for (int i = 0; i < MIN_OF(count, (int)ARRAY_SIZE(list)); i++)
		if (strcmp(list[i].name, name) == 0)
			return list[i].value;
	return 0;
}

static void stream_open(struct soak *s)
{
	struct live_stream_options options = {
		.config = { .source = "pattern:",
			    .sinks = { "loopback:0" },
			    .sink_count = 1,
			    .prompt = "invert the colors",
			    .autostart = true },
	};
	struct pipeline_options *p = &options.config.pipeline;
	struct sana_error error = { 0 };

	fake_devices_init(&s->devices);
	pipeline_options_init(p);
	p->model = (struct sana_model_options){ .directory = "models/demo", .threads = 1 };
	p->stream.width = WIDTH;
	p->stream.height = HEIGHT;
	p->devices = fake_devices_functions(&s->devices);
	if (live_stream_create(&options, &s->stream, &error) < 0)
		fail_msg("%s", error.text);
}

static void drain(struct soak *s)
{
	struct live_event event;

	while (live_stream_next_event(s->stream, &event)) {
		s->applied += event.kind == LIVE_EVENT_PROMPT_APPLIED;
		s->snapshots += event.kind == LIVE_EVENT_SNAPSHOT && !event.name[0];
		if (event.kind == LIVE_EVENT_FAULT)
			fail_msg("fault %s: %s", event.name, event.text);
	}
}

static void second_wait(struct soak *s)
{
	const struct timespec until = clock_to_timespec(clock_now_ns() + CLOCK_SECOND_NS);

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	drain(s);
	(void)live_stream_progress(s->stream);
	if (s->samples < SAMPLES)
		s->sample[s->samples++] = (int64_t)statistic(s, "age-p99-ns");
}

static int compare(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* What users do in between: a new prompt, a snapshot. */
static void disturb(struct soak *s, int n)
{
	static const char *const prompts[] = { "make it sepia", "invert the colors" };
	uint64_t ticket;
	int fd;

	assert_int_equal(live_stream_set_prompt(s->stream, prompts[n % 2], &ticket, NULL), 0);
	fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_int_equal(live_stream_snapshot(s->stream, fd, &ticket, NULL), 0);
}

static void tenth_run(struct soak *s, int tenth)
{
	const int64_t end_ns = s->start_ns + s->length_ns * (tenth + 1) / TENTHS;
	int n = 0;

	s->samples = 0;
	while (clock_now_ns() < end_ns) {
		second_wait(s);
		if (n++ % DISTURB_SECONDS == 0)
			disturb(s, tenth + n);
	}
	qsort(s->sample, (size_t)s->samples, sizeof(*s->sample), compare);
	s->age_p99_ns[tenth] = s->sample[s->samples / 2];
	s->rss_bytes[tenth] = rss_bytes();
	s->descriptors[tenth] = descriptors();
	print_message(
		"tenth %2d: age p99 %.1f ms, interval p99 %.2f ms, RSS %lld KiB, %d descriptors, "
		"shown %llu, repeated %llu, dropped %llu\n",
		tenth + 1, (double)s->age_p99_ns[tenth] / 1e6,
		(double)statistic(s, "interval-p99-ns") / 1e6,
		(long long)(s->rss_bytes[tenth] >> 10), s->descriptors[tenth],
		(unsigned long long)statistic(s, "frames-shown"),
		(unsigned long long)statistic(s, "frames-repeated"),
		(unsigned long long)(statistic(s, "frames-dropped-overload") +
				     statistic(s, "frames-dropped-queue")));
	(void)fflush(NULL);
}

/* The frame path alone: what was asked for before is over. */
static void quiet_run(struct soak *s)
{
	uint64_t before;

	for (int i = 0; i < QUIET_SECONDS; i++)
		second_wait(s);
	before = allocations_counted();
	allocations_count(true);
	for (int i = 0; i < QUIET_SECONDS; i++)
		second_wait(s);
	allocations_count(false);
	s->allocations = allocations_counted() - before;
}

static void test_soak(void **state)
{
	static struct soak s;
	double change;

	(void)state;
	log_set_level(LOG_LEVEL_WARNING);
	stream_open(&s);
	while (live_stream_state(s.stream) != LIVE_STATE_RUNNING)
		second_wait(&s);
	s.start_ns = clock_now_ns();
	s.length_ns = seconds_wanted() * CLOCK_SECOND_NS;
	for (int i = 0; i < TENTHS; i++)
		tenth_run(&s, i);
	quiet_run(&s);
	s.shown = statistic(&s, "frames-shown");
	change = (double)s.age_p99_ns[TENTHS - 1] / (double)s.age_p99_ns[1] - 1.0;
	print_message(
		"age p99 of the last tenth against the second: %+.1f %%; %llu allocations in %d s "
		"after it; %llu prompts, %llu snapshots; cpu but the engine's %.2f %% of a core\n",
		100.0 * change, (unsigned long long)s.allocations, QUIET_SECONDS,
		(unsigned long long)s.applied, (unsigned long long)s.snapshots,
		(double)statistic(&s, "cpu-ns") / (double)(clock_now_ns() - s.start_ns) * 100.0);
	assert_true(s.shown > (uint64_t)(12 * s.length_ns / CLOCK_SECOND_NS));
	assert_true(s.applied > 0 && s.snapshots > 0);
	/* A minute is too short for it: one restart or one busy neighbour is a tenth of the time. */
	if (s.length_ns >= LATENCY_SECONDS * CLOCK_SECOND_NS)
		assert_true(change < 0.05);
	assert_int_equal(s.descriptors[TENTHS - 1], s.descriptors[1]);
	assert_true(s.rss_bytes[TENTHS - 1] - s.rss_bytes[1] <= RSS_SLACK_BYTES);
	if (ALLOCATIONS_COUNTED)
		assert_int_equal(s.allocations, 0);
	s.stream = live_stream_destroy(s.stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_soak) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
