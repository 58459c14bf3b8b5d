/*
 * The pipeline's threads over a fake engine and fake devices, in real time: what is shown when, what is
 * counted, and how it comes back from each loss.
 */
#include "tests/common/pipeline_rig.h"

#include "base/histogram.h"
#include "daemon/pipeline_private.h"

#include <errno.h>

#ifdef __SANITIZE_ADDRESS__
#define SLOW 1
#else
#define SLOW 0
#endif

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	return 0;
}

/* Quicker than the published model's 33 and 24. */
static void short_chunks(void)
{
	fake_engine.first_frames = 9;
	fake_engine.chunk_frames = 6;
}

/* Something within the first second; then negatives of the source, evenly, each once. */
static void test_flow(void **state)
{
	struct fake_sink *sink = &rig.devices.sink[0];
	const int64_t start_ns = clock_now_ns();
	struct pipeline_statistics s;
	int64_t first_ns, edited_ns;

	(void)state;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	first_ns = rig_wait_pixel(&rig, 0, rig_source, 0, 2);
	edited_ns = rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_RUNNING, NULL, 1);
	assert_true(rig_find(&rig, 0, PIPELINE_EVENT_PROMPT_APPLIED, NULL) >= 0);
	rig_run(&rig, 3);
	s = rig_statistics(&rig);
	print_message("first picture after %.0f ms, first edited one after %.0f ms (a chunk of 33 "
		      "frames takes 1333)\n",
		      (double)(sink->write[0].at_ns - start_ns) / 1e6,
		      (double)(edited_ns - start_ns) / 1e6);
	print_message(
		"captured %llu edited %llu shown %llu repeated %llu, age p50 %.0f p99 %.0f ms, "
		"output interval p50 %.2f p99 %.2f ms\n",
		(unsigned long long)s.frames_captured, (unsigned long long)s.frames_edited,
		(unsigned long long)s.frames_shown, (unsigned long long)s.frames_repeated,
		(double)s.age_p50_ns / 1e6, (double)s.age_p99_ns / 1e6,
		(double)s.interval_p50_ns / 1e6, (double)s.interval_p99_ns / 1e6);
	assert_true(sink->write[0].at_ns - start_ns < CLOCK_SECOND_NS);
	assert_true(first_ns - start_ns < CLOCK_SECOND_NS);
	assert_true(s.frames_shown >= 48);
	assert_int_equal(s.dropped_overload + s.dropped_ring + s.dropped_stale, 0);
	assert_int_equal(s.frames_late + s.frames_skipped, 0);
	/* The first frame of a chunk waits for its 33rd. */
	assert_in_range(s.age_p50_ns, CLOCK_SECOND_NS, 3 * CLOCK_SECOND_NS / 2);
	for (int i = 1; i < atomic_load(&sink->writes); i++)
		assert_true(sink->write[i].timestamp_ns > sink->write[i - 1].timestamp_ns);
	rig_finish(&rig);
	assert_int_equal(atomic_load(&sink->finished), 1);
}

/* Half of the frames are left out, evenly, before the model; the age stays below the cap. */
static void test_overload(void **state)
{
	struct pipeline_statistics before, s;
	double seconds = 16;

	(void)state;
	atomic_store(&fake_engine.frame_ns, CLOCK_SECOND_NS / 12);
	rig.options.settings.while_warming = PIPELINE_SHOW_SLATE;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_RUNNING, NULL, 15);
	rig_run(&rig, 4); /* the first chunk's excess goes */
	before = rig_statistics(&rig);
	rig_run(&rig, seconds);
	s = rig_statistics(&rig);
	print_message(
		"at half speed: edited %.1f a second, left out %.1f a second, ring %llu, age p50 "
		"%.2f p99 %.2f s (cap %.1f)\n",
		(double)(s.frames_edited - before.frames_edited) / seconds,
		(double)(s.dropped_overload - before.dropped_overload) / seconds,
		(unsigned long long)(s.dropped_ring - before.dropped_ring),
		(double)s.age_p50_ns / 1e9, (double)s.age_p99_ns / 1e9,
		(double)rig.options.settings.latency_cap_ns / 1e9);
	assert_true(s.dropped_overload - before.dropped_overload > 8 * (uint64_t)seconds);
	assert_int_equal(s.dropped_ring - before.dropped_ring, 0);
	assert_true(s.frames_shown - before.frames_shown > 8 * (uint64_t)seconds);
	assert_true(s.age_max_ns <= rig.options.settings.latency_cap_ns + CLOCK_SECOND_NS / 24);
	rig_finish(&rig);
}

/* Per frame, the most it was thought to be within so many seconds. */
static int64_t most_work_ns(double seconds)
{
	const int64_t end_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	struct pipeline *p = rig.pipeline;
	int64_t most_ns = 0;

	while (clock_now_ns() < end_ns) {
		rig_run(&rig, 0.05);
		(void)pthread_mutex_lock(&p->lock);
		most_ns = MAX_OF(most_ns, p->capture.admit.engine_ns);
		(void)pthread_mutex_unlock(&p->lock);
	}
	return most_ns;
}

/* As on a GPU: what has come goes in before a stage is waited for, and work is measured of whole chunks. */
static void test_stages_on_their_way(void **state)
{
	const int64_t work_ns = CLOCK_SECOND_NS / 32;
	struct pipeline_statistics s;
	int64_t most_ns;

	(void)state;
	fake_engine.overlaps = true;
	atomic_store(&fake_engine.frame_ns, work_ns);
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_WARM, NULL, 15);
	/* Warming up pushes all it has at once. */
	atomic_store(&fake_engine.most_pushed, 0);
	most_ns = most_work_ns(8);
	s = rig_statistics(&rig);
	print_message("work per frame %.1f ms, thought to be up to %.1f; edited %llu, left out "
		      "%llu; up to %d frames in between two steps\n",
		      (double)work_ns / 1e6, (double)most_ns / 1e6,
		      (unsigned long long)s.frames_edited, (unsigned long long)s.dropped_overload,
		      atomic_load(&fake_engine.most_pushed));
	assert_true(s.frames_edited > 60);
	assert_in_range(most_ns, work_ns, 5 * work_ns / 4);
	assert_int_equal(s.dropped_overload, 0);
	assert_true(atomic_load(&fake_engine.most_pushed) > 1);
	rig_finish(&rig);
}

/* Pulled out: card within 2 s; back: edited frames within 2 s and the length of a chunk. */
static void test_lost_source(void **state)
{
	int64_t lost_ns, back_ns, card_ns, source_ns, edited_ns;
	int event;

	(void)state;
	short_chunks();
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	for (int round = 0; round < 3; round++) {
		rig_drain(&rig);
		event = rig.events;
		lost_ns = clock_now_ns();
		atomic_store(&rig.devices.camera.there, false);
		card_ns = rig_wait_pixel(&rig, 0, rig_card, lost_ns, 3);
		(void)rig_wait_event(&rig, event, PIPELINE_EVENT_SOURCE_LOST, NULL, 1);
		rig_run(&rig, 2.5); /* the back-off is at its most */
		back_ns = clock_now_ns();
		atomic_store(&rig.devices.camera.there, true);
		(void)rig_wait_event(&rig, event, PIPELINE_EVENT_SOURCE_RESTORED, NULL, 3);
		source_ns = clock_now_ns();
		edited_ns = rig_wait_pixel(&rig, 0, rig_edited, back_ns, 5);
		print_message("card after %.2f s, source after %.2f s, edited after %.2f s\n",
			      (double)(card_ns - lost_ns) / 1e9,
			      (double)(source_ns - back_ns) / 1e9,
			      (double)(edited_ns - back_ns) / 1e9);
		assert_true(card_ns - lost_ns <= 2 * CLOCK_SECOND_NS);
		assert_true(edited_ns - back_ns <= 2 * CLOCK_SECOND_NS);
	}
	print_message("source.lost %llu, source.no-device %llu\n",
		      (unsigned long long)rig_fault(&rig, "source.lost"),
		      (unsigned long long)rig_fault(&rig, "source.no-device"));
	assert_int_equal(rig_fault(&rig, "source.lost"), 3);
	assert_true(rig_fault(&rig, "source.no-device") >= 6);
	rig_finish(&rig);
}

/* With the published model's chunks frames are on their way for longer than they are held. */
static void test_lost_source_of_long_chunks(void **state)
{
	const struct fake_sink *sink = &rig.devices.sink[0];
	int64_t lost_ns, card_ns;

	(void)state;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	rig_run(&rig, 2);
	rig_drain(&rig);
	lost_ns = clock_now_ns();
	atomic_store(&rig.devices.camera.there, false);
	card_ns = rig_wait_pixel(&rig, 0, rig_card, lost_ns, 4);
	print_message("card after %.2f s, frames were %.2f s old\n",
		      (double)(card_ns - lost_ns) / 1e9,
		      (double)rig_statistics(&rig).delay_ns / 1e9);
	assert_true(card_ns - lost_ns >= CLOCK_SECOND_NS);
	assert_true(card_ns - lost_ns <= 2 * CLOCK_SECOND_NS);
	/* It stays: nothing of before comes back. */
	rig_run(&rig, 1.5);
	for (int i = 0; i < MIN_OF(atomic_load(&sink->writes), FAKE_WRITES); i++)
		if (sink->write[i].at_ns > card_ns)
			assert_memory_equal(sink->write[i].pixel, rig_card, 3);
	rig_finish(&rig);
}

/* Hotplug says so: no waiting for the end of the back-off. */
static void test_retry(void **state)
{
	int64_t back_ns;

	(void)state;
	rig.options.settings.backoff_min_ns = rig.options.settings.backoff_max_ns =
		60 * CLOCK_SECOND_NS;
	atomic_store(&rig.devices.camera.there, false);
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, "source.no-device", 2);
	atomic_store(&rig.devices.camera.there, true);
	back_ns = clock_now_ns();
	pipeline_retry(rig.pipeline);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_SOURCE_RESTORED, NULL, 2);
	print_message("back after %.0f ms\n", (double)(clock_now_ns() - back_ns) / 1e6);
	assert_true(clock_now_ns() - back_ns < CLOCK_SECOND_NS);
	rig_finish(&rig);
}

/* Single damaged pictures are counted, and the source is not lost. */
static void test_damaged(void **state)
{
	uint64_t resets, opened;

	(void)state;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_source, 0, 2);
	for (int i = 0; i < 3; i++) {
		atomic_store(&rig.devices.camera.soft, 1);
		rig_run(&rig, 0.3);
	}
	print_message("source.damaged %llu\n",
		      (unsigned long long)rig_fault(&rig, "source.damaged"));
	assert_int_equal(rig_fault(&rig, "source.damaged"), 3);
	assert_int_equal(rig_statistics(&rig).frames_lost, 3);
	assert_true(rig_find(&rig, 0, PIPELINE_EVENT_SOURCE_LOST, NULL) < 0);
	assert_true(rig_find(&rig, 0, PIPELINE_EVENT_FAULT, "source.damaged") >= 0);
	/* A camera that gives nothing else is lost. */
	resets = atomic_load(&fake_engine.resets);
	opened = atomic_load(&rig.devices.camera.opened);
	atomic_store(&rig.devices.camera.soft, 1000000);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_SOURCE_LOST, NULL, 3);
	atomic_store(&rig.devices.camera.soft, 0);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_SOURCE_RESTORED, NULL, 3);
	/* It was never closed; what comes now begins a new history all the same. */
	(void)rig_wait_pixel(&rig, 0, rig_edited, clock_now_ns(), 5);
	assert_int_equal(atomic_load(&rig.devices.camera.opened), opened);
	assert_int_equal(atomic_load(&fake_engine.resets), resets + 1);
	rig_finish(&rig);
}

/* One failure: it goes on. Two in a row: model and stream are opened again. The prompt stays. */
static void test_engine_failures(void **state)
{
	static const char *const final[] = { "backend.kernel", "backend.lost" };
	int64_t failed_ns;
	uint64_t opened;

	(void)state;
	short_chunks();
	atomic_store(&fake_engine.model_failures, 2);
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, "model.weights", 2);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 8);
	opened = atomic_load(&fake_engine.opened);
	failed_ns = clock_now_ns();
	atomic_store(&fake_engine.step_failures, 1);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, "backend.failed", 3);
	(void)rig_wait_pixel(&rig, 0, rig_edited, failed_ns + CLOCK_SECOND_NS, 5);
	assert_int_equal(atomic_load(&fake_engine.opened), opened);
	failed_ns = clock_now_ns();
	atomic_store(&fake_engine.step_failures, 2);
	rig_run(&rig, 1);
	(void)rig_wait_pixel(&rig, 0, rig_edited, failed_ns + 2 * CLOCK_SECOND_NS, 8);
	print_message("models opened %llu, model.weights %llu, backend.failed %llu\n",
		      (unsigned long long)atomic_load(&fake_engine.opened),
		      (unsigned long long)rig_fault(&rig, "model.weights"),
		      (unsigned long long)rig_fault(&rig, "backend.failed"));
	assert_int_equal(atomic_load(&fake_engine.opened), opened + 1);
	assert_int_equal(rig_fault(&rig, "backend.failed"), 3);
	/* After these nothing of the old model works: one is enough. */
	for (size_t i = 0; i < ARRAY_SIZE(final); i++) {
		failed_ns = clock_now_ns();
		fake_engine.step_fault = final[i];
		atomic_store(&fake_engine.step_failures, 1);
		(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, final[i], 3);
		(void)rig_wait_pixel(&rig, 0, rig_edited, failed_ns + 2 * CLOCK_SECOND_NS, 8);
		assert_int_equal(atomic_load(&fake_engine.opened), opened + 2 + i);
		assert_int_equal(rig_fault(&rig, final[i]), 1);
	}
	/* The prompt is announced once. */
	rig_drain(&rig);
	assert_true(rig_find(&rig, 1 + rig_find(&rig, 0, PIPELINE_EVENT_PROMPT_APPLIED, NULL),
			     PIPELINE_EVENT_PROMPT_APPLIED, NULL) < 0);
	rig_finish(&rig);
}

/* Six refusals of a lost GPU are a minute, whatever the devices' back-off is. */
static void test_engine_pauses(void **state)
{
	static const int64_t ms[] = { 100, 400, 1600, 6400, 25600, 30000, 30000 };
	int64_t now_ns = 1000 * CLOCK_SECOND_NS;
	struct backoff backoff = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ms); i++) {
		engine_backoff_fail(&backoff, now_ns);
		print_message("pause %zu: %.1f s\n", i + 1,
			      (double)(backoff.until_ns - now_ns) / 1e9);
		assert_int_equal(backoff.until_ns - now_ns, ms[i] * CLOCK_MS_NS);
		now_ns = backoff.until_ns;
	}
}

/* A camera that is plugged in while the GPU is away brings no GPU: no attempt is made because of it. */
static void test_devices_while_gpu_is_lost(void **state)
{
	int64_t lost_ns, passed_ns;
	uint64_t refused;
	int event;

	(void)state;
	short_chunks();
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	fake_engine.model_fault = "backend.no-device";
	fake_engine.step_fault = "backend.lost";
	atomic_store(&fake_engine.model_failures, 1000);
	lost_ns = clock_now_ns();
	atomic_store(&fake_engine.step_failures, 1);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, "backend.no-device", 3);
	for (int i = 0; i < 30; i++) {
		pipeline_retry(rig.pipeline);
		rig_run(&rig, 0.04);
	}
	refused = rig_fault(&rig, "backend.no-device");
	passed_ns = clock_now_ns() - lost_ns;
	print_message("30 device events, %llu refusals in %.1f s\n", (unsigned long long)refused,
		      (double)passed_ns / 1e9);
	/* By the pauses alone: 0.1, 0.4, 1.6 and 6.4 s. */
	assert_in_range(refused, 1, passed_ns < 2 * CLOCK_SECOND_NS ? 2 : 4);
	assert_false(pipeline_needs_new_process(rig.pipeline));
	event = rig.events;
	atomic_store(&fake_engine.model_failures, 0);
	(void)rig_wait_event(&rig, event, PIPELINE_EVENT_MODEL, NULL, 9);
	(void)rig_wait_pixel(&rig, 0, rig_edited, clock_now_ns(), 5);
	rig_finish(&rig);
}

/* Progress moves, half a second each time. */
static void check_progress(int times)
{
	uint64_t before = pipeline_progress(rig.pipeline);

	for (int i = 0; i < times; i++) {
		rig_run(&rig, 0.5);
		assert_true(pipeline_progress(rig.pipeline) > before);
		before = pipeline_progress(rig.pipeline);
	}
}

/* It stands still while `hangs` is set, unless `crawls` is too. */
static void check_hang(atomic_bool *hangs, atomic_bool *crawls)
{
	uint64_t before;

	atomic_store(hangs, true);
	rig_run(&rig, 0.5);
	(void)pipeline_progress(rig.pipeline); /* what was before the hang */
	before = pipeline_progress(rig.pipeline);
	rig_run(&rig, 2);
	print_message("progress %llu, two seconds later %llu\n", (unsigned long long)before,
		      (unsigned long long)pipeline_progress(rig.pipeline));
	assert_int_equal(pipeline_progress(rig.pipeline), before);
	atomic_store(crawls, true);
	check_progress(3);
	atomic_store(hangs, false);
	atomic_store(crawls, false);
}

/* Progress stands still while the engine or the text encoder hangs, and only then. */
static void test_hang(void **state)
{
	(void)state;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	check_progress(4);
	check_hang(&fake_engine.hangs, &fake_engine.crawls);
	check_progress(2);
	atomic_store(&fake_engine.prompts_hang, true);
	(void)pipeline_set_prompt(rig.pipeline, "another");
	check_hang(&fake_engine.prompts_hang, &fake_engine.prompts_crawl);
	/* A camera that is silent is no hang: it is waited for. */
	atomic_store(&rig.devices.camera.silent, true);
	rig_run(&rig, 1);
	check_progress(2);
	rig_finish(&rig);
}

/* Nobody looks: camera closed, engine idle, nothing written. Somebody looks: all is back. */
static void test_unwatched(void **state)
{
	struct fake_sink *sink = &rig.devices.sink[0];
	int64_t back_ns, first_ns;
	uint64_t pushed;
	int writes, event;

	(void)state;
	short_chunks();
	rig.options.settings.sleep_unwatched = true;
	rig.options.settings.unwatched_ns = CLOCK_SECOND_NS / 2;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	atomic_store(&sink->watched, false);
	event = rig_wait_event(&rig, 0, PIPELINE_EVENT_WATCHED, NULL, 2);
	assert_false(rig.event[event].on);
	rig_run(&rig, 0.5);
	pushed = atomic_load(&fake_engine.pushed);
	writes = atomic_load(&sink->writes);
	assert_int_equal(atomic_load(&rig.devices.camera.open), 0);
	rig_run(&rig, 1);
	assert_int_equal(atomic_load(&fake_engine.pushed), pushed);
	assert_int_equal(atomic_load(&sink->writes), writes);
	back_ns = clock_now_ns();
	atomic_store(&sink->watched, true);
	first_ns = rig_wait_pixel(&rig, 0, rig_source, back_ns, 2);
	(void)rig_wait_pixel(&rig, 0, rig_edited, back_ns, 3);
	print_message("first picture for the new reader after %.0f ms\n",
		      (double)(first_ns - back_ns) / 1e6);
	assert_true(first_ns - back_ns < CLOCK_SECOND_NS);
	rig_finish(&rig);
}

/* A sink that fails comes back; one that blocks disturbs no other. */
static void test_sinks(void **state)
{
	struct fake_sink *good = &rig.devices.sink[0], *bad = &rig.devices.sink[1];
	const char *const one[] = { "loopback:0" };
	const char *const twice[] = { "loopback:0", "loopback:0" };
	struct sana_error error = { 0 };
	struct histogram interval;
	int before;

	(void)state;
	histogram_init(&interval, 0);
	atomic_store(&bad->open_failures, 2);
	rig_start(&rig, "v4l2:fake", "loopback:0", "loopback:1");
	(void)rig_wait_pixel(&rig, 1, rig_source, 0, 3);
	assert_int_equal(rig_fault(&rig, "sink.no-device"), 2);
	atomic_store(&bad->failures, 1);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_FAULT, "sink.lost", 2);
	(void)rig_wait_pixel(&rig, 1, rig_edited, 0, 3);
	assert_int_equal(atomic_load(&bad->opened), 2);
	atomic_store(&bad->blocks, true);
	before = atomic_load(&good->writes);
	rig_run(&rig, 2);
	for (int i = before + 1; i < atomic_load(&good->writes); i++)
		histogram_add(&interval, 0, good->write[i].at_ns - good->write[i - 1].at_ns);
	print_message("beside a sink that blocks: %llu pictures, interval p50 %.2f p99 %.2f ms; "
		      "dropped %llu\n",
		      (unsigned long long)histogram_total(&interval),
		      (double)histogram_quantile(&interval, 0.5) / 1e6,
		      (double)histogram_quantile(&interval, 0.99) / 1e6,
		      (unsigned long long)rig_statistics(&rig).sink_dropped);
	assert_true(histogram_total(&interval) > 40);
	assert_true(rig_statistics(&rig).sink_dropped > 20);
	atomic_store(&bad->blocks, false);
	assert_int_equal(pipeline_set_sinks(rig.pipeline, twice, 2, &error), -EINVAL);
	assert_string_equal(error.name, "sink.twice");
	assert_int_equal(pipeline_set_sinks(rig.pipeline, one, 1, &error), 0);
	rig_run(&rig, 0.5);
	before = atomic_load(&bad->writes);
	rig_run(&rig, 0.5);
	assert_int_equal(atomic_load(&bad->writes), before);
	assert_int_equal(atomic_load(&bad->finished), 2);
	rig_finish(&rig);
}

static void test_pause(void **state)
{
	struct fake_sink *sink = &rig.devices.sink[0];
	int64_t paused_ns;
	uint64_t pulled;

	(void)state;
	short_chunks();
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 5);
	pipeline_set_paused(rig.pipeline, true);
	rig_run(&rig, 0.5);
	paused_ns = clock_now_ns();
	pulled = atomic_load(&fake_engine.pulled);
	rig_run(&rig, 2);
	/* The last edited frame stays. */
	assert_int_equal(atomic_load(&fake_engine.pulled), pulled);
	for (int i = 0; i < atomic_load(&sink->writes); i++)
		if (sink->write[i].at_ns > paused_ns)
			assert_memory_equal(sink->write[i].pixel, rig_edited, 3);
	pipeline_set_paused(rig.pipeline, false);
	rig_run(&rig, 2);
	assert_true(atomic_load(&fake_engine.pulled) > pulled);
	/* Stopped: sinks are completed and closed, nothing is written. */
	pipeline_set_active(rig.pipeline, false);
	rig_run(&rig, 0.5);
	assert_int_equal(atomic_load(&sink->finished), 1);
	assert_int_equal(atomic_load(&rig.devices.camera.open), 0);
	rig_finish(&rig);
}

/* Newer prompts replace those that wait; each ticket is answered once. */
static void test_prompts(void **state)
{
	uint64_t first, second, third;
	int event;

	(void)state;
	short_chunks();
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	event = rig_wait_event(&rig, 0, PIPELINE_EVENT_PROMPT_APPLIED, NULL, 5);
	first = rig.event[event].ticket;
	/* Chunks run for warming up are nobody's concern. */
	assert_int_equal(rig.event[event].chunk, 0);
	second = pipeline_set_prompt(rig.pipeline, "another");
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_PROMPT_APPLIED, NULL, 3);
	print_message("tickets %llu, %llu; chunk %llu\n", (unsigned long long)first,
		      (unsigned long long)second, (unsigned long long)rig.event[event].chunk);
	assert_int_equal(rig.event[event].ticket, second);
	atomic_store(&fake_engine.refuses_prompts, true);
	third = pipeline_set_prompt(rig.pipeline, "no such");
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_PROMPT_REFUSED, "prompt.tokens", 3);
	assert_int_equal(rig.event[event].ticket, third);
	/* Frames go on under the old one. */
	(void)rig_wait_pixel(&rig, 0, rig_edited, clock_now_ns(), 2);
	/* Two reach the engine before its next chunk: the older one is answered, too. */
	atomic_store(&fake_engine.refuses_prompts, false);
	pipeline_set_paused(rig.pipeline, true);
	rig_run(&rig, 0.5);
	first = pipeline_set_prompt(rig.pipeline, "one of two");
	rig_run(&rig, 0.5);
	second = pipeline_set_prompt(rig.pipeline, "two of two");
	rig_run(&rig, 0.5);
	pipeline_set_paused(rig.pipeline, false);
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_PROMPT_REFUSED, "prompt.replaced",
			       5);
	assert_int_equal(rig.event[event].ticket, first);
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_PROMPT_APPLIED, NULL, 3);
	assert_int_equal(rig.event[event].ticket, second);
	rig_finish(&rig);
}

/* The prompt of the start survives a warm-up that fails; later ones are announced by a rebuilt engine. */
static void test_prompts_survive(void **state)
{
	uint64_t ticket;
	int event;

	(void)state;
	short_chunks();
	atomic_store(&fake_engine.step_failures, 1);
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	event = rig_wait_event(&rig, 0, PIPELINE_EVENT_PROMPT_APPLIED, NULL, 8);
	ticket = rig.event[event].ticket;
	(void)rig_wait_pixel(&rig, 0, rig_edited, 0, 3);
	atomic_store(&fake_engine.step_failures, 2);
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_MODEL, NULL, 8);
	(void)rig_wait_pixel(&rig, 0, rig_edited, clock_now_ns() + CLOCK_SECOND_NS, 5);
	ticket = pipeline_set_prompt(rig.pipeline, "after it");
	event = rig_wait_event(&rig, event + 1, PIPELINE_EVENT_PROMPT_APPLIED, NULL, 3);
	assert_int_equal(rig.event[event].ticket, ticket);
	rig_finish(&rig);
}

/* No pool, queue or event list grows, whatever happens for some seconds. */
static void test_noise(void **state)
{
	const char *const sinks[] = { "loopback:0", "loopback:1", "loopback:2" };
	const double seconds = SLOW ? 4 : 8;
	const int64_t end_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	struct pipeline_settings settings = rig.options.settings;
	struct sana_error error;
	unsigned int n = 0;

	(void)state;
	short_chunks();
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	while (clock_now_ns() < end_ns) {
		n++;
		(void)pipeline_set_sinks(rig.pipeline, sinks, (int)(n % 4), &error);
		pipeline_set_source(rig.pipeline, n % 3 ? "v4l2:fake" : "pattern:");
		pipeline_set_paused(rig.pipeline, n % 7 == 0);
		pipeline_set_active(rig.pipeline, n % 11 != 0);
		atomic_store(&rig.devices.camera.there, n % 5 != 0);
		atomic_store(&fake_engine.step_failures, n % 13 == 0 ? 2 : 0);
		settings.while_warming = (enum pipeline_show)(n % PIPELINE_SHOW_COUNT);
		settings.while_lost = (enum pipeline_show)((n / 2) % PIPELINE_SHOW_COUNT);
		pipeline_set_settings(rig.pipeline, &settings);
		(void)pipeline_set_prompt(rig.pipeline, "a prompt");
		pipeline_reset(rig.pipeline);
		pipeline_retry(rig.pipeline);
		rig.events = 0;
		rig_run(&rig, 0.037);
	}
	print_message("%u rounds of changes\n", n);
	pipeline_set_active(rig.pipeline, true);
	pipeline_set_paused(rig.pipeline, false);
	atomic_store(&rig.devices.camera.there, true);
	atomic_store(&fake_engine.step_failures, 0);
	pipeline_set_source(rig.pipeline, "v4l2:fake");
	rig_run(&rig, 0.5);
	assert_int_equal(pipeline_set_sinks(rig.pipeline, sinks, 1, &error), 0);
	(void)rig_wait_pixel(&rig, 0, rig_edited, clock_now_ns(), 8);
	assert_int_equal(rig_statistics(&rig).pool_empty, 0);
	rig_finish(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_flow, setup),
		cmocka_unit_test_setup(test_overload, setup),
		cmocka_unit_test_setup(test_stages_on_their_way, setup),
		cmocka_unit_test_setup(test_lost_source, setup),
		cmocka_unit_test_setup(test_lost_source_of_long_chunks, setup),
		cmocka_unit_test_setup(test_retry, setup),
		cmocka_unit_test_setup(test_damaged, setup),
		cmocka_unit_test_setup(test_engine_failures, setup),
		cmocka_unit_test(test_engine_pauses),
		cmocka_unit_test_setup(test_devices_while_gpu_is_lost, setup),
		cmocka_unit_test_setup(test_hang, setup),
		cmocka_unit_test_setup(test_unwatched, setup),
		cmocka_unit_test_setup(test_sinks, setup),
		cmocka_unit_test_setup(test_pause, setup),
		cmocka_unit_test_setup(test_prompts, setup),
		cmocka_unit_test_setup(test_prompts_survive, setup),
		cmocka_unit_test_setup(test_noise, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
