/*
 * Choices that are measured: products by our own kernels and by cublasLt against the CPU back end, the same
 * bits with the same file and under `deterministic`, files that are damaged or cannot be written.
 *
 * `cuda-tuning digest DIRECTORY|-` is the other process of some of them.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cublaslt.h"
#include "kernels/tuning.h"
#include "tests/common/cuda_test.h"
#include "tests/common/scratch.h"
#include "tools/bench/op_check.h"

static struct cuda_test test;
static struct kernel_device *first; /* of `test`, which has no file */
static struct scratch scratch;
static size_t workspace_bytes; /* of the last op measured */

/* The 2 B model's products at 1280×704: those the library may make first. */
static const struct linear_case cases[] = {
	{ .rows = 2640, .in = 2240, .parts = 1, .out = { 2240 } },
	{ .rows = 2640, .in = 6720, .parts = 1, .out = { 2240 } },
	{ .rows = 2640, .in = 2240, .parts = 4, .out = { 2240, 2240, 2240, 2240 } },
	/* rows of another stride, the last tiles cut */
	{ .rows = 1031, .in = 1144, .parts = 1, .out = { 1112 }, .pad = 8 },
	/* so few tiles that K may be split */
	{ .rows = 1024, .in = 6720, .parts = 1, .out = { 256 } },
	{ .rows = 2640, .in = 2240, .parts = 1, .out = { 2240 }, .bias = true },
	{ .rows = 2640,
	  .in = 2240,
	  .parts = 1,
	  .out = { 2240 },
	  .bias = true,
	  .residual = true,
	  .gate = true,
	  .in_place = true },
	{ .rows = 2640,
	  .in = 2240,
	  .parts = 1,
	  .out = { 13440 },
	  .activation = KERNEL_SILU,
	  .bias = true },
};

enum { LIBRARY_CASES = 5 }; /* the first of them: plain products without a bias */

/* ------------------------------------------------------------------------------ opening, tuning */

static struct kernel_device *tuned_open(const char *directory, bool deterministic)
{
	const struct kernel_device_options options = { .deterministic = deterministic,
						       .tuning_directory = directory };
	struct kernel_device *device;
	char text[256] = "";

	if (kernel_backend_cuda.open(&options, text, sizeof(text), &device) < 0)
		fail_msg("%s", text);
	return device;
}

/* Both devices are one GPU: memory and queues of the first serve the second. */
static void device_use(struct kernel_device *device)
{
	test.gpu.device = device;
}

static void device_close(void)
{
	kernel_backend_cuda.close(test.gpu.device);
	test.gpu.device = first;
}

static struct kernel_tuning *tuned(void)
{
	static struct kernel_tuning tuning;

	kernel_backend_cuda.tuned(test.gpu.device, &tuning);
	printf("  %s%s%s\n", tuning.text, tuning.note[0] ? " " : "", tuning.note);
	return &tuning;
}

/* Measures one op; its workspace is as the back end wants it. */
static void tune(enum kernel_op op, struct kernel_workspace *params)
{
	const struct kernel_backend *table = &kernel_backend_cuda;
	void *memory = NULL;

	params->bytes = table->workspace[op] ? table->workspace[op](test.gpu.device, params) : 0;
	if (params->bytes)
		assert_int_equal(table->allocate(test.gpu.device, params->bytes, &memory), 0);
	params->data = memory;
	workspace_bytes = params->bytes;
	assert_int_equal(table->tune(test.gpu.device, op, params, test.gpu.queue), 0);
	assert_int_equal(table->queue_wait(test.gpu.device, test.gpu.queue), 0);
	table->release(test.gpu.device, memory, params->bytes);
	*params = (struct kernel_workspace){ 0 };
}

static void tune_linear(uint64_t seed, const struct linear_case *c)
{
	struct linear_run run;

	cuda_test_reset(&test, seed);
	check_linear_fill(&test, c, &run);
	tune(KERNEL_OP_linear, &run.gpu.workspace);
}

static const char *kernels_used(void)
{
	return kernel_backend_cuda.kernels_used(test.gpu.device, KERNEL_OP_linear);
}

static void lines_print(const struct kernel_tuning *tuning)
{
	for (int i = 0; i < tuning->lines; i++) {
		const struct kernel_tuning_line *line = &tuning->line[i];

		printf("  %-44s estimate %.4f %s, own %.4f %s, library %.4f %s: %d\n", line->shape,
		       line->estimated_ms, line->estimated, line->own_ms, line->own,
		       line->library_ms, line->library, line->chosen);
	}
}

/* ------------------------------------------------------------------------------------ the tests */

static void measured_is_the_oracle(void **state)
{
	struct kernel_tuning *tuning;

	(void)state;
	device_use(tuned_open(scratch_path(&scratch, "own"), false));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		tune_linear(i, &cases[i]);
	tuning = tuned();
	lines_print(tuning);
	assert_int_equal(tuning->measured + tuning->left, ARRAY_SIZE(cases));
	assert_string_equal(tuning->note, "");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_linear(&test, 300 + i, &cases[i]);
	device_close();
}

static void known_is_not_measured(void **state)
{
	struct kernel_tuning *tuning;

	(void)state;
	device_use(tuned_open(scratch_path(&scratch, "own"), false));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		tune_linear(i, &cases[i]);
	tuning = tuned();
	assert_int_equal(tuning->known + tuning->measured + tuning->left, ARRAY_SIZE(cases));
	assert_true(tuning->known > 0);
	assert_int_equal(tuning->lines, tuning->measured);
	device_close();
}

static const char *file_path(const char *directory)
{
	char name[128] = "", path[300];
	struct kernel_facts facts;
	size_t i;

	kernel_backend_cuda.facts(first, &facts);
	for (i = 0; facts.name[i]; i++)
		name[i] = strchr(" ./()", facts.name[i]) ? '-' : facts.name[i];
	(void)snprintf(path, sizeof(path), "%s/products-%s.tuning", directory, name);
	return scratch_path(&scratch, path);
}

static struct tuning_machine machine_here(const struct cublaslt *lt, const char *path)
{
	struct tuning_machine machine = { .library = cublaslt_version(lt) };
	unsigned long long kernels = 0;
	struct kernel_facts facts;
	FILE *file = fopen(path, "r");
	char line[128];

	/* Only the file knows the digest of the kernels. */
	assert_non_null(file);
	while (!kernels && fgets(line, sizeof(line), file))
		(void)sscanf(line, "kernels %llx", &kernels);
	(void)fclose(file);
	machine.kernels = kernels;

	kernel_backend_cuda.facts(test.gpu.device, &facts);
	memcpy(machine.device, facts.name, sizeof(machine.device));
	machine.capability = facts.capability;
	machine.multiprocessors = facts.multiprocessors;
	machine.driver = facts.driver_version;
	return machine;
}

/* The library's i-th algorithm for each part of the first cases. */
static void library_force(struct tuning *tuning, struct cublaslt *lt, int algorithm)
{
	for (int i = 0; i < LIBRARY_CASES; i++) {
		const struct linear_case *c = &cases[i];
		struct tuning_choice *choice = &tuning->choice[i];
		struct cublaslt_plan *plan;
		const struct cublaslt_product product = {
			.rows = c->rows,
			.in = c->in,
			.out = c->out[0],
			.ldx = (int64_t)c->in + (int64_t)c->pad,
			.ldy = (int64_t)c->out[0] + (int64_t)c->pad,
		};

		assert_int_equal(cublaslt_plan_create(lt, &product, 8, workspace_bytes, &plan), 0);
		(void)snprintf(choice->kernel, sizeof(choice->kernel), "-");
		choice->products = c->parts;
		for (int p = 0; p < c->parts; p++) {
			choice->product[p].first = p;
			choice->product[p].parts = 1;
			memcpy(choice->product[p].algorithm,
			       cublaslt_plan_algorithm(plan,
						       algorithm % cublaslt_plan_algorithms(plan)),
			       sizeof(choice->product[p].algorithm));
		}
		cublaslt_plan_destroy(plan);
	}
}

/* Whether or not it is the faster one here, what it makes must be right. */
static void library_is_the_oracle(void **state)
{
	static struct tuning tuning;
	struct tuning_machine machine;
	struct cublaslt *lt;

	(void)state;
	if (cublaslt_open(&lt) < 0) {
		printf("  there is no libcublasLt here\n");
		skip();
	}
	machine = machine_here(lt, file_path("own"));
	assert_int_equal(tuning_load(file_path("own"), &machine, &tuning), 0);
	if (tuning.choices < (int)ARRAY_SIZE(cases))
		skip(); /* the device is so slow that some were left out */
	for (int algorithm = 7; algorithm >= 0; algorithm -= 3) {
		library_force(&tuning, lt, algorithm);
		assert_int_equal(tuning_save(file_path("library"), &tuning), 0);
		device_use(tuned_open(scratch_path(&scratch, "library"), false));
		for (int i = 0; i < LIBRARY_CASES; i++)
			tune_linear((uint64_t)i, &cases[i]);
		assert_int_equal(tuned()->library, LIBRARY_CASES);
		for (int i = 0; i < LIBRARY_CASES; i++) {
			check_linear(&test, 400 + (uint64_t)i, &cases[i]);
			assert_non_null(strstr(kernels_used(), "cublasLt"));
		}
		device_close();
	}
	cublaslt_close(lt);
}

/* Without the workspace it was planned for, our own kernels serve. */
static void no_workspace_is_our_own(void **state)
{
	struct linear_run run;

	(void)state;
	if (access(file_path("library"), F_OK) < 0)
		skip();
	device_use(tuned_open(scratch_path(&scratch, "library"), false));
	tune_linear(1, &cases[1]);
	assert_int_equal(tuned()->library, 1);
	cuda_test_reset(&test, 1);
	check_linear_fill(&test, &cases[1], &run);
	assert_int_equal(kernel_backend_cuda.run[KERNEL_OP_linear](
				 test.gpu.device, &run.gpu.workspace, test.gpu.queue),
			 0);
	assert_int_equal(kernel_backend_cuda.queue_wait(test.gpu.device, test.gpu.queue), 0);
	printf("  %s\n", kernels_used());
	assert_null(strstr(kernels_used(), "cublasLt"));
	device_close();
}

/* q, k and v lie side by side in memory and in their result; a gate with a bias is the fourth part. */
static void neighbours_are_one_product(void **state)
{
	enum { ROWS = 2640, IN = 2240, OUT = 2240, ALL = 4 * OUT };
	struct kernel_linear cpu, gpu;
	struct cuda_weight weight, part[4];
	struct cuda_tensor x, y, bias;

	(void)state;
	cuda_test_reset(&test, 900);
	x = cuda_test_random(&test, (size_t)ROWS * IN, -1.7, 1.7, false);
	y = cuda_test_output(&test, (size_t)ROWS * ALL, false);
	bias = cuda_test_random(&test, OUT, -1, 1, true);
	weight = cuda_test_weight(&test, ALL, IN, 1, 0, 1, 1.0);
	cpu = (struct kernel_linear){ .x = x.cpu, .ldx = IN, .rows = ROWS, .parts = 4 };
	gpu = cpu;
	gpu.x = x.gpu;
	for (int i = 0; i < 4; i++) {
		const size_t at = (size_t)i * OUT;

		part[i] = weight;
		part[i].cpu.out = part[i].gpu.out = OUT;
		part[i].cpu.prepared = (float *)weight.cpu.prepared + at * IN;
		part[i].gpu.prepared = (uint16_t *)weight.gpu.prepared + at * IN;
		cpu.part[i] = (struct kernel_linear_part){ .weight = &part[i].cpu,
							   .bias = i == 3 ? bias.cpu : NULL,
							   .y = y.cpu + at,
							   .ldy = ALL };
		gpu.part[i] = cpu.part[i];
		gpu.part[i].weight = &part[i].gpu;
		gpu.part[i].bias = i == 3 ? bias.gpu : NULL;
		gpu.part[i].y = (uint16_t *)y.gpu + at;
	}
	device_use(tuned_open(NULL, false));
	{
		struct kernel_linear measured = gpu;

		tune(KERNEL_OP_linear, &measured.workspace);
	}
	lines_print(tuned());
	/* Its input was overwritten. */
	cuda_test_refill(&test, &x, -1.7, 1.7);
	cuda_test_run(&test, KERNEL_OP_linear, &cpu.workspace, &gpu.workspace);
	(void)cuda_test_compare(&test, KERNEL_OP_linear, &y, CUDA_TOLERANCE,
				"q, k, v side by side and a gate");
	device_close();
}

static void temporal_is_measured(void **state)
{
	static const struct temporal_case c = { 3, 880, 2240, true, true, true, false };
	const size_t frame = (size_t)c.tokens * (size_t)c.channels;
	struct kernel_temporal_conv op = { .frames = c.frames,
					   .tokens_per_frame = c.tokens,
					   .channels = c.channels };
	struct cuda_weight w;

	(void)state;
	cuda_test_reset(&test, 950);
	w = cuda_test_weight(&test, c.channels, c.channels, 3, 0, 3, 1.0);
	op.weight = &w.gpu;
	op.x = cuda_test_random(&test, 3 * frame, -1, 1, false).gpu;
	op.r = cuda_test_random(&test, 3 * frame, -1, 1, false).gpu;
	op.left = cuda_test_random(&test, frame, -1, 1, false).gpu;
	op.gate = cuda_test_random(&test, (size_t)c.channels, -1, 1, true).gpu;
	device_use(tuned_open(NULL, false));
	tune(KERNEL_OP_temporal_conv, &op.workspace);
	lines_print(tuned());
	check_temporal(&test, 951, &c);
	device_close();
}

/* --------------------------------------------------------------------------------- other processes */

/* Of all cases' results; `directory` "-": deterministic. */
static int digest_print(const char *directory)
{
	const bool deterministic = strcmp(directory, "-") == 0;
	uint64_t digest = 0;

	cuda_test_open(&test);
	first = test.gpu.device;
	device_use(tuned_open(deterministic ? NULL : directory, deterministic));
	for (size_t i = 0; i < LIBRARY_CASES; i++)
		tune_linear(i, &cases[i]);
	(void)tuned();
	for (size_t i = 0; i < LIBRARY_CASES; i++) {
		struct linear_run run;

		cuda_test_reset(&test, 700 + i);
		check_linear_fill(&test, &cases[i], &run);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_linear, &run.gpu.workspace), 0);
		for (int p = 0; p < cases[i].parts; p++)
			digest = 31 * digest + cuda_test_digest(&test, &run.y[p]);
		printf("%s\n", kernels_used());
	}
	printf("digest %016llx\n", (unsigned long long)digest);
	device_close();
	cuda_test_close(&test);
	return 0;
}

static uint64_t digest_of(const char *directory)
{
	unsigned long long digest = 0;
	char command[512], line[512];
	bool found = false;
	FILE *pipe;

	(void)snprintf(command, sizeof(command), "/proc/%d/exe digest '%s'", (int)getpid(),
		       directory);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe)) {
		printf("    %s", line);
		found |= sscanf(line, "digest %llx", &digest) == 1;
	}
	assert_int_equal(pclose(pipe), 0);
	assert_true(found);
	printf("  %s: %016llx\n", directory, digest);
	return digest;
}

static void same_bits_in_another_process(void **state)
{
	char own[256], library[256];

	(void)state;
	(void)snprintf(own, sizeof(own), "%s", scratch_path(&scratch, "own"));
	(void)snprintf(library, sizeof(library), "%s", scratch_path(&scratch, "library"));
	assert_true(digest_of(own) == digest_of(own));
	if (access(file_path("library"), F_OK) == 0)
		assert_true(digest_of(library) == digest_of(library));
	assert_true(digest_of("-") == digest_of("-"));
}

/* -------------------------------------------------------------------------------------- the file */

static void deterministic_measures_nothing(void **state)
{
	struct stat status;

	(void)state;
	device_use(tuned_open(scratch_path(&scratch, "none"), true));
	tune_linear(1, &cases[1]);
	assert_string_equal(tuned()->text, "");
	assert_int_equal(stat(scratch_path(&scratch, "none"), &status), -1);
	device_close();
}

static void damaged_file_is_measured_anew(void **state)
{
	static const char *const contents[] = { "", "sana-streamd tuning 1\n", "\377\376 no text",
						"sana-streamd tuning 2\nof the future\n" };
	char name[300];

	(void)state;
	(void)snprintf(name, sizeof(name), "%s", file_path("damaged"));
	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		scratch_write_text(&scratch, name + strlen(scratch.path) + 1, contents[i]);
		device_use(tuned_open(scratch_path(&scratch, "damaged"), false));
		tune_linear(1, &cases[1]);
		assert_int_equal(tuned()->measured, 1);
		device_close();
		device_use(tuned_open(scratch_path(&scratch, "damaged"), false));
		tune_linear(1, &cases[1]);
		assert_int_equal(tuned()->known, 1);
		device_close();
	}
}

static void unwritable_directory_is_said(void **state)
{
	struct kernel_tuning *tuning;

	(void)state;
	scratch_write_text(&scratch, "file", "in the way\n");
	device_use(tuned_open(scratch_path(&scratch, "file/directory"), false));
	tune_linear(1, &cases[1]);
	tuning = tuned();
	assert_int_equal(tuning->measured, 1);
	assert_non_null(strstr(tuning->note, "not kept"));
	check_linear(&test, 1, &cases[1]);
	device_close();
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open(&test);
	first = test.gpu.device;
	scratch_create(&scratch);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	scratch_remove(&scratch);
	cuda_test_close(&test);
	return 0;
}

int main(int count, char **arguments)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(measured_is_the_oracle),
		cmocka_unit_test(known_is_not_measured),
		cmocka_unit_test(library_is_the_oracle),
		cmocka_unit_test(no_workspace_is_our_own),
		cmocka_unit_test(neighbours_are_one_product),
		cmocka_unit_test(temporal_is_measured),
		cmocka_unit_test(same_bits_in_another_process),
		cmocka_unit_test(deterministic_measures_nothing),
		cmocka_unit_test(damaged_file_is_measured_anew),
		cmocka_unit_test(unwritable_directory_is_said),
	};

	if (count == 3 && strcmp(arguments[1], "digest") == 0)
		return digest_print(arguments[2]);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
