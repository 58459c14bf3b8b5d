/*
 * What the pipeline itself costs: no allocation in the frame path, on any thread, and little of one core
 * for everything but the engine.
 */
#include "tests/common/pipeline_rig.h"

#include "tests/common/allocations.h"

enum {
	WARM_S = 5, /* longer than the first chunk, and than converters take to be made */
	SECONDS = 5,
	/* The bound: of one core, at 640x360 and 24 frames a second in a raw format. */
	CPU_PERCENT = 10,
};

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	return 0;
}

/* A frame's way with nothing drained in between; the owner's thread reads statistics as it would. */
static uint64_t count_while_running(double warm, double seconds)
{
	const uint64_t before = allocations_counted();
	int64_t end_ns;

	rig_run(&rig, warm);
	end_ns = clock_now_ns() + (int64_t)(seconds * 1e9);
	allocations_count(true);
	while (clock_now_ns() < end_ns) {
		rig_run(&rig, 0.25);
		(void)rig_statistics(&rig);
		(void)pipeline_progress(rig.pipeline);
	}
	allocations_count(false);
	return allocations_counted() - before;
}

static void check_quiet(const char *source)
{
	const uint64_t shown = rig_statistics(&rig).frames_shown;
	const uint64_t seen = count_while_running(WARM_S, SECONDS);
	const struct pipeline_statistics s = rig_statistics(&rig);

	print_message("%s: %llu allocations in %d s, %llu edited frames shown\n", source,
		      (unsigned long long)seen, SECONDS,
		      (unsigned long long)(s.frames_shown - shown));
	assert_int_equal(seen, 0);
	assert_true(s.frames_shown - shown > 24);
	assert_int_equal(s.pool_empty, 0);
}

static void test_allocations(void **state)
{
	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	rig_start(&rig, "v4l2:yuyv", "loopback:0", "loopback:1");
	check_quiet("fake engine, YUYV camera");
	rig_finish(&rig);
}

/* The same with an engine that is too slow and a sink that comes and goes. */
static void test_allocations_overload(void **state)
{
	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	fake_engine.first_frames = 9;
	fake_engine.chunk_frames = 6;
	atomic_store(&fake_engine.frame_ns, CLOCK_SECOND_NS / 12);
	rig_start(&rig, "pattern:", "loopback:0", "loopback:1");
	atomic_store(&rig.devices.sink[1].blocks, true);
	check_quiet("fake engine at half speed, pattern");
	atomic_store(&rig.devices.sink[1].blocks, false);
	rig_finish(&rig);
}

/* The demo model itself, in a picture of a twentieth of its pixels. */
static void test_allocations_model(void **state)
{
	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	rig.options.engine = &pipeline_engine_sana;
	rig.options.model = (struct sana_model_options){ .directory = "models/demo", .threads = 1 };
	rig_start(&rig, "pattern:", "loopback:0", NULL);
	(void)rig_wait_event(&rig, 0, PIPELINE_EVENT_RUNNING, NULL, 60);
	check_quiet("demo model, pattern");
	rig_finish(&rig);
}

static void test_cpu(void **state)
{
	struct pipeline_statistics before, after;
	double percent;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	rig.options.model.shape = "demo"; /* sizes in multiples of 16 */
	fake_engine.first_frames = 9;
	fake_engine.chunk_frames = 6;
	rig.options.stream.width = 640;
	rig.options.stream.height = 352;
	rig_start(&rig, "v4l2:yuyv", "loopback:0", NULL);
	rig_run(&rig, 2);
	before = rig_statistics(&rig);
	rig_run(&rig, SECONDS);
	after = rig_statistics(&rig);
	percent = (double)(after.cpu_ns - before.cpu_ns) / 1e7 / SECONDS;
	print_message("capture, present and sink threads: %.1f %% of one core, %.1f frames/s "
		      "captured, %.1f shown\n",
		      percent, (double)(after.frames_captured - before.frames_captured) / SECONDS,
		      (double)(after.frames_shown - before.frames_shown) / SECONDS);
	assert_true(after.frames_shown - before.frames_shown >= 24 * SECONDS - 12);
	assert_true(percent <= CPU_PERCENT);
	rig_finish(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_allocations, setup),
		cmocka_unit_test_setup(test_allocations_overload, setup),
		cmocka_unit_test_setup(test_allocations_model, setup),
		cmocka_unit_test_setup(test_cpu, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
