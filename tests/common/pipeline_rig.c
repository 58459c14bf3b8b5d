/* A pipeline over the fake engine and fake devices. */
#include "tests/common/pipeline_rig.h"

#include <poll.h>

const uint8_t rig_source[3] = { FAKE_RED, FAKE_GREEN, FAKE_BLUE };
const uint8_t rig_edited[3] = { 255 - FAKE_RED, 255 - FAKE_GREEN, 255 - FAKE_BLUE };
const uint8_t rig_card[3] = { 40, 40, 40 }; /* the background of daemon/pipeline_card.c */

void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	fake_engine_init();
	fake_devices_init(&rig->devices);
	pipeline_options_init(&rig->options);
	rig->options.engine = &fake_engine_api;
	rig->options.devices = fake_devices_functions(&rig->devices);
	rig->options.model.shape = "2b";
	rig->options.stream.width = RIG_WIDTH;
	rig->options.stream.height = RIG_HEIGHT;
}

void rig_start(struct rig *rig, const char *source, const char *sink, const char *second_sink)
{
	const char *const sinks[] = { sink, second_sink };
	struct sana_error error = { 0 };
	const int count = (sink != NULL) + (second_sink != NULL);

	if (pipeline_create(&rig->options, &rig->pipeline, &error) < 0)
		fail_msg("pipeline_create: %s: %s", error.name, error.text);
	(void)pipeline_set_prompt(rig->pipeline, "make it a negative");
	pipeline_set_source(rig->pipeline, source);
	assert_int_equal(pipeline_set_sinks(rig->pipeline, sinks, count, &error), 0);
	pipeline_set_active(rig->pipeline, true);
}

void rig_finish(struct rig *rig)
{
	rig->pipeline = pipeline_destroy(rig->pipeline);
	/* Nothing of the engine's or the camera's is left behind. */
	assert_int_equal(atomic_load(&fake_engine.models), 0);
	assert_int_equal(atomic_load(&fake_engine.streams), 0);
	assert_int_equal(atomic_load(&fake_engine.prompts), 0);
	assert_int_equal(atomic_load(&rig->devices.camera.open), 0);
}

void rig_drain(struct rig *rig)
{
	while (rig->events < RIG_EVENTS &&
	       pipeline_next_event(rig->pipeline, &rig->event[rig->events]))
		rig->event_ns[rig->events++] = clock_now_ns();
}

int rig_find(const struct rig *rig, int from, enum pipeline_event_kind kind, const char *name)
{
	for (int i = from; i < rig->events; i++)
		if (rig->event[i].kind == kind && (!name || strcmp(rig->event[i].name, name) == 0))
			return i;
	return -1;
}

static void rig_poll(struct rig *rig, int64_t deadline_ns)
{
	struct pollfd fd = { .fd = pipeline_event_fd(rig->pipeline), .events = POLLIN };

	(void)poll(&fd, 1, MIN_OF(clock_poll_ms(deadline_ns), 10));
	rig_drain(rig);
}

int rig_wait_event(struct rig *rig, int from, enum pipeline_event_kind kind, const char *name,
		   double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	int found;

	for (;;) {
		rig_drain(rig);
		found = rig_find(rig, from, kind, name);
		if (found >= 0)
			return found;
		if (clock_now_ns() > deadline_ns)
			fail_msg("no event %d %s within %.1f s", (int)kind, name ? name : "",
				 seconds);
		rig_poll(rig, deadline_ns);
	}
}

void rig_run(struct rig *rig, double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);

	while (clock_now_ns() < deadline_ns)
		rig_poll(rig, deadline_ns);
}

int64_t rig_wait_pixel(struct rig *rig, int number, const uint8_t pixel[3], int64_t after_ns,
		       double seconds)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	struct fake_sink *sink = &rig->devices.sink[number];
	int n = 0;

	while (clock_now_ns() < deadline_ns) {
		for (; n < MIN_OF(atomic_load(&sink->writes), FAKE_WRITES); n++)
			if (sink->write[n].at_ns >= after_ns &&
			    memcmp(sink->write[n].pixel, pixel, 3) == 0)
				return sink->write[n].at_ns;
		rig_poll(rig, deadline_ns);
	}
	fail_msg("sink %d was given no picture of %d,%d,%d within %.1f s", number, pixel[0],
		 pixel[1], pixel[2], seconds);
	return 0;
}

struct pipeline_statistics rig_statistics(struct rig *rig)
{
	struct pipeline_statistics statistics;

	pipeline_statistics(rig->pipeline, &statistics);
	return statistics;
}

uint64_t rig_fault(struct rig *rig, const char *name)
{
	const struct pipeline_statistics statistics = rig_statistics(rig);

	for (int i = 0; i < statistics.faults; i++)
		if (strcmp(statistics.fault[i].name, name) == 0)
			return statistics.fault[i].count;
	return 0;
}
