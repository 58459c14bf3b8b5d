/*
 * For tests/scripts/cuda-faults.sh, which builds that driver; the argument is its file.
 *
 * What a GPU's driver can do to the program, done by a driver that computes nothing: each fault has its name, nothing
 * is left behind, and the next opening in the same process works. Kernels themselves: tests/cuda/faults.c.
 */
#include "tests/common/pipeline_rig.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "engine/backend.h"
#include "tests/common/expected.h"
#include "tests/common/gpu_stream.h"
#include "tests/fake-cuda/fake_cuda.h"

enum { SKIPPED = 77 };

/* Fewer calls where every access is checked. */
#ifdef __SANITIZE_ADDRESS__
enum { SPARED_STEP = 17 };
#else
enum { SPARED_STEP = 1 };
#endif

static const struct kernel_device_options none;
static struct fake_cuda *fake;
static void (*fake_reset)(struct fake_cuda *);

/* Loaded before anybody asks for a driver: the loader then takes it for the one of that name. */
static void fake_load(const char *file)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL), *reset;

	if (!library)
		fail_msg("%s", dlerror());
	fake = dlsym(library, "fake_cuda");
	reset = dlsym(library, "fake_cuda_reset");
	assert_non_null(fake);
	assert_non_null(reset);
	memcpy(&fake_reset, &reset, sizeof(reset));
	fake_reset(fake);
}

static void fail_at(const char *function, int spared, int result, bool sticky)
{
	fake->failing = function;
	fake->result = result;
	fake->sticky = sticky;
	fake->spared = spared;
}

/* All that the driver gave has come back. */
static void assert_all_is_back(void)
{
	assert_int_equal(fake->contexts, 0);
	assert_int_equal(fake->left_behind, 0);
	for (int i = 0; i < FAKE_CUDA_KINDS; i++)
		assert_int_equal(fake->owned[i], 0);
}

/* -------------------------------------------------------------------------- opening the back end */

struct refusal {
	const char *failing;
	int spared, result;
	const char *name, *words;
};

static void opens(void)
{
	struct backend backend;
	struct sana_error error = { 0 };

	fake_reset(fake);
	if (backend_open("cuda", &none, &backend, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	backend_close(&backend);
	assert_all_is_back();
}

static void refused(const char *name, const char *words)
{
	struct backend backend;
	struct sana_error error = { 0 };

	assert_true(backend_open("cuda", &none, &backend, &error) < 0);
	print_message("%s: %s\n", error.name, error.text);
	assert_string_equal(error.name, name);
	assert_non_null(strstr(error.text, words));
	assert_all_is_back();
	/* Who leaves the choice to the program gets the CPU, and is told why. */
	assert_int_equal(backend_open("auto", &none, &backend, &error), 0);
	assert_string_equal(backend.table->name, "cpu");
	assert_non_null(strstr(backend.note, words));
	backend_close(&backend);
	opens();
}

static void test_refusals(void **state)
{
	static const struct refusal cases[] = {
		{ "cuInit", 0, FAKE_CUDA_NO_DEVICE, "backend.no-device", "sees no GPU" },
		{ "cuInit", 0, FAKE_CUDA_SYSTEM_DRIVER_MISMATCH, "backend.driver",
		  "does not start" },
		{ "cuInit", 0, FAKE_CUDA_UNKNOWN, "backend.no-device", "does not start" },
		{ "cuDevicePrimaryCtxRetain", 0, FAKE_CUDA_OUT_OF_MEMORY, "memory", "no context" },
		{ "cuDevicePrimaryCtxRetain", 0, FAKE_CUDA_DEVICE_UNAVAILABLE, "backend.no-device",
		  "no context" },
		{ "cuLibraryLoadData", 0, FAKE_CUDA_NO_BINARY_FOR_GPU, "backend.architecture",
		  "compute capability 12.0" },
		/* A driver that loads code when it is first needed says it there. */
		{ "cuKernelGetFunction", 3, FAKE_CUDA_NO_BINARY_FOR_GPU, "backend.architecture",
		  "compute capability 12.0" },
		{ "cuMemAlloc", 0, FAKE_CUDA_OUT_OF_MEMORY, "memory", "no memory left" },
		{ "cuMemAllocHost", 1, FAKE_CUDA_OUT_OF_MEMORY, "memory", "no memory left" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* Asked twice: by name, and under "auto". */
		fake_reset(fake);
		fail_at(cases[i].failing, cases[i].spared, cases[i].result, false);
		fake->repeats = 2;
		refused(cases[i].name, cases[i].words);
	}
	fake->version = 12090;
	refused("backend.driver", "too old");
	fake->missing = "cuLibraryLoadData";
	refused("backend.driver", "has no cuLibraryLoadData");
	fake->devices = 0;
	refused("backend.no-device", "sees no GPU");
}

/* ------------------------------------------------------------------------------------------ memory */

/* Another program has most of the GPU: said with the plan's numbers, before anything is loaded. */
static void test_no_memory(void **state)
{
	/* Some of it is left; less than what is never asked for. */
	static const uint64_t left_mib[] = { 330, 100 };
	struct sana_model *model = NULL;
	struct sana_error error;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(left_mib); i++) {
		fake_reset(fake);
		fake->memory = left_mib[i] << 20;
		assert_int_equal(gpu_stream_model(&model, &error), -ENOMEM);
		print_message("%s: %s\n", error.name, error.text);
		assert_string_equal(error.name, "memory");
		assert_non_null(strstr(error.text, " MiB (the stream "));
		assert_non_null(strstr(error.text, "are free"));
		assert_int_equal(fake->uploads, 0);
		assert_all_is_back();
	}
}

/* It takes it between the plan and the allocation. */
static void test_memory_taken(void **state)
{
	struct sana_model *model = NULL;
	struct sana_error error;

	(void)state;
	fake_reset(fake);
	fail_at("cuMemAlloc", 2, FAKE_CUDA_OUT_OF_MEMORY, false);
	assert_int_equal(gpu_stream_model(&model, &error), -ENOMEM);
	print_message("%s: %s\n", error.name, error.text);
	assert_string_equal(error.name, "memory");
	assert_non_null(strstr(error.text, "another program has taken it"));
	assert_int_equal(fake->uploads, 0);
	assert_all_is_back();
}

/* ----------------------------------------------------------------------------------- while editing */

static void fails_while_editing(const char *function, int result, const char *name)
{
	enum { FRAMES = 60 };
	struct gpu_stream s;
	struct sana_error error = { 0 };
	struct sana_model *beside = NULL;

	fake_reset(fake);
	assert_int_equal(gpu_stream_open(&s, &error), 0);
	assert_true(gpu_stream_run(&s, FRAMES, &error) > 0);
	fail_at(function, 3, result, true);
	assert_true(gpu_stream_run(&s, 2 * FRAMES, &error) < 0);
	print_message("%s: %s\n", error.name, error.text);
	assert_string_equal(error.name, name);
	/* Nothing works any more, and says so; another model would have the same context. */
	assert_true(gpu_stream_model(&beside, &error) < 0);
	print_message("%s: %s\n", error.name, error.text);
	if (strcmp(name, "backend.kernel") == 0)
		assert_string_equal(error.name, name);
	assert_true(gpu_stream_run(&s, 2 * FRAMES, &error) < 0);
	assert_string_equal(error.name, name);
	assert_true(sana_prompt_create(s.model, "another one", &s.prompt, &error) < 0);
	assert_string_equal(error.name, name);
	gpu_stream_close(&s);
	assert_all_is_back();
	/* Opened again it is as before. */
	assert_int_equal(gpu_stream_open(&s, &error), 0);
	assert_true(gpu_stream_run(&s, FRAMES, &error) > 0);
	gpu_stream_close(&s);
	assert_all_is_back();
}

static void test_editing(void **state)
{
	(void)state;
	fails_while_editing("cuEventQuery", FAKE_CUDA_ILLEGAL_ADDRESS, "backend.kernel");
	fails_while_editing("cuLaunchKernelEx", FAKE_CUDA_LAUNCH_FAILED, "backend.kernel");
	fails_while_editing("cuGraphLaunch", FAKE_CUDA_ECC_UNCORRECTABLE, "backend.lost");
	fails_while_editing("cuMemcpyHtoDAsync", FAKE_CUDA_UNKNOWN, "backend.lost");
}

/*
 * Each driver call of a whole life fails once. Whatever it is, the answer is a named error or a stream that went
 * on, and nothing is left behind.
 */
static void one_call_fails(int spared, int result, bool sticky, int *ret_refused)
{
	struct gpu_stream s;
	struct sana_error error = { 0 };
	int r;

	fake_reset(fake);
	fail_at(NULL, spared, result, sticky);
	r = gpu_stream_open(&s, &error);
	if (r >= 0)
		r = gpu_stream_run(&s, 12, &error);
	if (r < 0)
		assert_true(strncmp(error.name, "backend.", 8) == 0 ||
			    strcmp(error.name, "memory") == 0);
	*ret_refused += r < 0;
	gpu_stream_close(&s);
	/* A call that fails while closing has kept what it was to give back. */
	if (r < 0 || sticky)
		assert_all_is_back();
	fake->spared = -1;
}

static void test_every_call(void **state)
{
	static const int results[] = { FAKE_CUDA_OUT_OF_MEMORY, FAKE_CUDA_ILLEGAL_ADDRESS,
				       FAKE_CUDA_UNKNOWN };
	struct gpu_stream s;
	struct sana_error error;
	int calls, failed = 0, tried = 0;

	(void)state;
	fake_reset(fake);
	assert_int_equal(gpu_stream_open(&s, &error), 0);
	assert_true(gpu_stream_run(&s, 12, &error) > 0);
	calls = (int)fake->calls;
	gpu_stream_close(&s);
	for (int spared = 0; spared < calls; spared += SPARED_STEP) {
		one_call_fails(spared, results[tried % 3], tried % 3 != 0, &failed);
		tried++;
	}
	print_message("%d of %d calls failed, %d answered with a named error\n", tried, calls,
		      failed);
	assert_true(failed > 0);
}

/* --------------------------------------------------------------------------------------- the daemon */

/* Forgets what was said: a model that loads says much. Then waits for an event. */
static const struct pipeline_event *next(struct rig *rig, enum pipeline_event_kind kind,
					 const char *name)
{
	int at;

	rig_drain(rig);
	at = rig_wait_event(rig, 0, kind, name, 30);
	rig->events = 0;
	return &rig->event[at];
}

/* Waits for an edited frame. */
static void edits(struct rig *rig)
{
	const uint64_t before = rig_statistics(rig).frames_edited;

	for (int i = 0; i < 300 && rig_statistics(rig).frames_edited == before; i++)
		rig_run(rig, 0.1);
	assert_true(rig_statistics(rig).frames_edited > before);
	rig->events = 0;
}

/* The pipeline with the true engine lives: it closes the engine, waits, and opens it again. */
static void test_pipeline(void **state)
{
	static struct rig rig;
	int attempts;

	(void)state;
	fake_reset(fake);
	rig_init(&rig);
	rig.options.engine = &pipeline_engine_sana;
	rig.options.model = (struct sana_model_options){ .directory = EXPECTED_DEMO,
							 .backend = "auto",
							 .deterministic = true };
	rig.options.stream.width = GPU_STREAM_WIDTH;
	rig.options.stream.height = GPU_STREAM_HEIGHT;
	rig.options.settings.backoff_min_ns = 100 * CLOCK_MS_NS;
	rig_start(&rig, "v4l2:fake", "loopback:0", NULL);
	(void)next(&rig, PIPELINE_EVENT_MODEL, "cuda");
	(void)next(&rig, PIPELINE_EVENT_PROMPT_APPLIED, NULL);

	/* What a driver forgives: one fault, one rebuild, the prompt still in force. */
	fail_at("cuMemcpyHtoDAsync", 0, FAKE_CUDA_ILLEGAL_ADDRESS, true);
	(void)next(&rig, PIPELINE_EVENT_FAULT, "backend.kernel");
	assert_string_equal(next(&rig, PIPELINE_EVENT_MODEL, NULL)->name, "cuda");
	assert_int_equal(rig_fault(&rig, "backend.kernel"), 1);
	edits(&rig);

	/* The GPU goes away, and stays away for a while: attempts become rarer, and no CPU takes its place. */
	rig.events = 0;
	fake->devices = 0;
	fail_at("cuMemcpyHtoDAsync", 0, FAKE_CUDA_ECC_UNCORRECTABLE, true);
	(void)next(&rig, PIPELINE_EVENT_FAULT, "backend.lost");
	rig_run(&rig, 1.5);
	attempts = (int)rig_fault(&rig, "backend.no-device");
	print_message("%d attempts in 1.5 seconds\n", attempts);
	assert_in_range(attempts, 2, 3);
	rig.events = 0;
	fake->devices = 1;
	assert_string_equal(next(&rig, PIPELINE_EVENT_MODEL, NULL)->name, "cuda");
	/* The first edited frame begins the pauses anew. */
	edits(&rig);

	/* Another program takes the memory meanwhile: it is asked for again until it is there. */
	fake->memory = (uint64_t)100 << 20;
	fail_at("cuMemcpyHtoDAsync", 0, FAKE_CUDA_LAUNCH_FAILED, true);
	(void)next(&rig, PIPELINE_EVENT_FAULT, "memory");
	fake->memory = (uint64_t)2 << 30;
	assert_string_equal(next(&rig, PIPELINE_EVENT_MODEL, NULL)->name, "cuda");
	edits(&rig);
	assert_false(pipeline_needs_new_process(rig.pipeline));

	/* What it does not forgive: after two refusals it is said that only a new process helps. */
	fake->lasting = true;
	fail_at("cuMemcpyHtoDAsync", 0, FAKE_CUDA_ILLEGAL_ADDRESS, true);
	(void)next(&rig, PIPELINE_EVENT_FAULT, "backend.kernel");
	for (int i = 0; i < 50 && !pipeline_needs_new_process(rig.pipeline); i++)
		rig_run(&rig, 0.1);
	assert_true(pipeline_needs_new_process(rig.pipeline));
	rig_finish(&rig);
	assert_all_is_back();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),     cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_memory_taken), cmocka_unit_test(test_editing),
		cmocka_unit_test(test_every_call),   cmocka_unit_test(test_pipeline),
	};
	struct sana_error error = { 0 };
	struct backend backend;

	if (!kernel_backend_cuda.allocate && backend_open("cuda", &none, &backend, &error) < 0) {
		printf("skipped: %s\n", error.text);
		return SKIPPED;
	}
	assert_int_equal(argc, 2);
	fake_load(argv[1]);
	return cmocka_run_group_tests_name("cuda faults", tests, NULL, NULL);
}
