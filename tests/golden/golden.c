/* golden: runs the engine on manifests and compares every tensor of the files beside them. */
#include "tests/golden/golden.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>

#include "tests/golden/manifest.h"

enum { EXIT_OFF = 1, EXIT_WRONG = 2 }; /* values over the tolerance; nothing could be compared */

/*
 * Which network a manifest is for, told by a field of its config that no other kind has. The engine
 * and the reference both work in FP32, whose noise is about 1e-6; what a tensor may be off grows with
 * the number of steps behind it, so the finished stream of the DiT gets more.
 */
static const struct golden_kind {
	const char *field;
	double tolerance, final_tolerance;
	int (*run)(struct golden *g);
} kinds[] = {
	{ "depth", 2e-5, 5e-5, golden_dit },
	{ "encoder_channels", 2e-5, 2e-5, golden_vae },
	{ "vocab_size", 1e-5, 1e-5, golden_text },
};

static const char final_name[] = "output";

/*
 * A back end that keeps activations in BF16 is measured against the reference's own BF16 run, whose
 * distance from the FP32 values the manifest has for what comes out at the end: roundings in other places
 * leave the same error there, not more than half as much again. Inside, carried frames and velocities are
 * small differences of the residual stream that is rounded, so their own relative error is larger.
 */
static const double bf16_share = 1.5, bf16_inner_share = 3;

/* The manifest's yardstick for a tensor: one number, or one for each half of a VAE. */
static double bf16_reference(const struct golden *g, const char *name)
{
	const json_t *reference = json_object_get(g->manifest, "reference_bf16_rel_l2");
	const bool encodes = strstr(name, "encoder") || strstr(name, "latent_mean");

	if (json_is_object(reference))
		reference = json_object_get(reference, encodes ? "encode" : "decode_causal");
	return json_number_value(reference);
}

static double tolerance_of(const struct golden *g, const char *name)
{
	const bool final = strcmp(name, final_name) == 0;
	const bool inner = strncmp(name, "call", 4) == 0 || strncmp(name, "cache", 5) == 0;

	if (g->backend.table && g->backend.table->activation == KERNEL_BF16)
		return (inner ? bf16_inner_share : bf16_share) * bf16_reference(g, name);
	return final ? g->final_tolerance : g->tolerance;
}

/* -------------------------------------------------------------------------------------- memory */

static void golden_release(struct golden *g)
{
	const struct kernel_backend *table = g->backend.table;

	if (g->queue)
		table->queue_destroy(g->backend.device, g->queue);
	if (g->block)
		table->release(g->backend.device, g->block, g->block_bytes);
	g->queue = NULL;
	g->block = NULL;
	g->block_bytes = 0;
	backend_close(&g->backend);
}

static int run_failed(struct golden *g, int r, const char *what)
{
	return sana_error_set(g->error, r, "golden.run", "%.200s: %s: %s.", g->path, what,
			      strerror(-r));
}

/* Measures what `layout` wants: *ret_bytes without and with the workspace of its ops. */
static int place_measure(struct golden *g, golden_layout layout, void *context,
			 struct loader *loader, size_t *ret_workspace, size_t *ret_bytes)
{
	struct op_context planning = { .backend = &g->backend, .planning = true };
	struct arena arena;
	int r;

	arena_measure(&arena);
	/* cppcheck-suppress autoVariables ; the loader is used in this call only */
	loader->arena = &arena;
	loader->measuring = true;
	r = layout(g, context, loader, &planning);
	if (r < 0)
		return r;
	r = loader->status < 0 ? loader->status : planning.status;
	if (r < 0)
		return run_failed(g, r, "the run cannot be planned");
	(void)arena_take(&arena, "workspace", 1, planning.workspace.bytes);
	if (arena.overflowed)
		return run_failed(g, -EOVERFLOW, "the run cannot be planned");
	*ret_workspace = planning.workspace.bytes;
	*ret_bytes = MAX_OF(arena.used, (size_t)KERNEL_ALIGNMENT);
	return 0;
}

static int place_fill(struct golden *g, golden_layout layout, void *context, struct loader *loader,
		      size_t workspace)
{
	struct arena arena;
	int r;

	arena_place(&arena, g->block, g->block_bytes);
	/* cppcheck-suppress autoVariables ; the loader is used in this call only */
	loader->arena = &arena;
	loader->measuring = false;
	r = layout(g, context, loader, NULL);
	if (r < 0)
		return r;
	if (loader->status < 0)
		return run_failed(g, loader->status, "the weights cannot be loaded");
	g->op = (struct op_context){
		.backend = &g->backend,
		.queue = g->queue,
		.workspace = { arena_take(&arena, "workspace", 1, workspace), workspace },
	};
	if (arena.overflowed)
		return run_failed(g, -EOVERFLOW, "the second layout wants more than the first");
	return 0;
}

int golden_place(struct golden *g, golden_layout layout, void *context)
{
	struct loader loader = {
		.backend = &g->backend,
		.table = g->weights,
		.prepare = g->options->prepare,
		.line = "weights",
	};
	size_t workspace = 0, bytes = 0;
	int r;

	golden_release(g);
	r = backend_open(g->options->backend,
			 &(struct kernel_device_options){ .threads = g->options->threads },
			 &g->backend, g->error);
	if (r < 0)
		return r;
	r = place_measure(g, layout, context, &loader, &workspace, &bytes);
	if (r < 0)
		return r;
	r = g->backend.table->allocate(g->backend.device, bytes, &g->block);
	if (r < 0)
		return run_failed(g, r, "no memory for the run");
	g->block_bytes = bytes;
	r = g->backend.table->queue_create(g->backend.device, 0, &g->queue);
	if (r < 0)
		return run_failed(g, r, "no queue for the run");
	loader.queue = g->queue;
	return place_fill(g, layout, context, &loader, workspace);
}

int golden_read_float(struct golden *g, const float *device, size_t count, float *to)
{
	int r;

	op_download(&g->op, to, device, count * sizeof(*to));
	r = op_wait(&g->op);
	return r < 0 ? run_failed(g, r, kernel_op_name(g->op.failed)) : 0;
}

int golden_read_act(struct golden *g, const void *device, size_t count, float *to)
{
	struct weight_tensor tensor = { .dtype = g->backend.table->activation, .rank = 1 };
	_cleanup_(freep) void *values = NULL;
	int r;

	values = malloc(count * kernel_dtype_bytes(tensor.dtype));
	if (!values)
		return run_failed(g, -ENOMEM, "no memory for a tensor");
	op_download(&g->op, values, device, count * kernel_dtype_bytes(tensor.dtype));
	r = op_wait(&g->op);
	if (r < 0)
		return run_failed(g, r, kernel_op_name(g->op.failed));
	tensor.shape[0] = (int64_t)count;
	tensor.data = values;
	weights_read_float(&tensor, to, count);
	return 0;
}

/* --------------------------------------------------------------------------------------- books */

struct golden_tensor *golden_find(struct golden *g, const char *name)
{
	for (size_t i = 0; i < g->expected_count; i++)
		if (strcmp(g->expected[i].name, name) == 0)
			return &g->expected[i];
	return NULL;
}

/* A row without a figure (infinity) is worse than any figure, a NaN comes next. */
static bool is_worse(double error, double than)
{
	return error > than || (isnan(error) && isfinite(than));
}

/* One row. `text` (or NULL) says what is wrong where there is no figure. */
static void row_print(struct golden *g, const char *name, const char *note, double error,
		      double tolerance, const char *text)
{
	char full[sizeof(g->worst_name)];
	bool bad = text || !(error <= tolerance); /* a NaN is not below anything */

	(void)snprintf(full, sizeof(full), note ? "%s [%.100s]" : "%s", name, note);
	g->compared++;
	g->failed += bad;
	if (text)
		printf("%-56s FAIL: %s\n", full, text);
	else
		printf("%-56s %.3e%s\n", full, error, bad ? "  FAIL" : "");
	if (text)
		error = INFINITY;
	if (g->worst_name[0] && !is_worse(error, g->worst))
		return;
	g->worst = error;
	(void)snprintf(g->worst_name, sizeof(g->worst_name), "%s", full);
}

/* Relative L2 over columns of the rows in use; got has strides, so that any order can be read. */
struct got_layout {
	const float *values;
	size_t rows, columns, row_stride, column_stride;
	const uint8_t *use;
};

static double relative_l2(const float *expected, const struct got_layout *got)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < got->rows; i++) {
		if (got->use && !got->use[i])
			continue;
		for (size_t j = 0; j < got->columns; j++) {
			double want = expected[i * got->columns + j];
			double have = got->values[i * got->row_stride + j * got->column_stride];

			difference += (have - want) * (have - want);
			norm += want * want;
		}
	}
	/* Where zeros are expected there is nothing to be relative to. */
	return norm == 0 ? sqrt(difference) : sqrt(difference / norm);
}

static void compare(struct golden *g, const char *name, const char *note,
		    const struct got_layout *got)
{
	struct golden_tensor *tensor = golden_find(g, name);

	if (!tensor)
		return;
	tensor->produced = true;
	if (tensor->is_integer)
		row_print(g, name, note, 0, 0, "the file holds integers");
	else if (tensor->count != got->rows * got->columns)
		row_print(g, name, note, 0, 0, "not as many elements as in the file");
	else
		row_print(g, name, note, relative_l2(tensor->data, got), tolerance_of(g, name),
			  NULL);
}

void golden_compare_rows(struct golden *g, const char *name, const char *note, const float *got,
			 const uint8_t *use, size_t rows, size_t columns)
{
	compare(g, name, note, &(struct got_layout){ got, rows, columns, columns, 1, use });
}

void golden_compare(struct golden *g, const char *name, const char *note, const float *got,
		    size_t count)
{
	golden_compare_rows(g, name, note, got, NULL, 1, count);
}

void golden_compare_channels_last(struct golden *g, const char *name, const char *note,
				  const float *got, size_t channels, size_t positions)
{
	compare(g, name, note, &(struct got_layout){ got, channels, positions, 1, channels, NULL });
}

/* ---------------------------------------------------------------------------------------- main */

static int golden_run(struct golden *g)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!json_object_get(g->config, kinds[i].field))
			continue;
		g->tolerance = kinds[i].tolerance;
		g->final_tolerance = kinds[i].final_tolerance;
		return kinds[i].run(g);
	}
	return golden_fail(g, "\"config\" has none of \"depth\", \"encoder_channels\" and "
			      "\"vocab_size\", so it is for no network known here.");
}

static void missing_report(struct golden *g)
{
	for (size_t i = 0; i < g->expected_count; i++)
		if (!g->expected[i].produced)
			row_print(g, g->expected[i].name, NULL, 0, 0,
				  "the engine did not produce it");
}

/* All manifests of a call. */
struct totals {
	int compared, failed, broken; /* broken: manifests that could not be run */
	double worst;
	const char *worst_path;
	char worst_name[2 * GOLDEN_NAME_BYTES];
};

static void totals_add(struct totals *totals, const struct golden *g)
{
	totals->compared += g->compared;
	totals->failed += g->failed;
	if (!g->compared || (totals->worst_path && !is_worse(g->worst, totals->worst)))
		return;
	totals->worst = g->worst;
	totals->worst_path = g->path;
	memcpy(totals->worst_name, g->worst_name, sizeof(totals->worst_name));
}

/* Imported weights in place of the generated ones: the same values are expected of them. */
static int weights_replace(struct golden *g)
{
	weights_destroy(g->weights);
	g->weights = NULL;
	return weights_open(g->options->weights, "model.safetensors", &g->weights, g->error);
}

/* One manifest. Returns the exit status. */
static int manifest_run(const char *path, const struct golden_options *options,
			struct totals *totals)
{
	struct sana_error error = { 0 };
	struct golden g = { .path = path, .options = options, .error = &error };
	int r;

	r = golden_open(&g);
	if (r >= 0 && options->weights)
		r = weights_replace(&g);
	if (r >= 0)
		r = golden_run(&g);
	if (r >= 0)
		missing_report(&g);
	totals_add(totals, &g);
	golden_release(&g);
	golden_close(&g);
	if (r >= 0)
		return g.failed || !g.compared ? EXIT_OFF : 0;
	totals->broken++;
	(void)fflush(stdout);
	(void)fprintf(stderr, "golden: %s\n", error.text);
	return EXIT_WRONG;
}

static void usage(void)
{
	(void)fprintf(
		stderr,
		"usage: golden [--threads N] [--backend NAME] [--prepare | --no-prepare] "
		"[--weights DIR] MANIFEST.json...\n"
		"Compares the engine with the tensors of MANIFEST.safetensors: name and relative\n"
		"L2 of each. Exit status 0: all within tolerance; 1: some are not; 2: a manifest\n"
		"is wrong or could not be run.\n");
}

/* Returns the index of the first manifest, or the negative exit status. */
static int options_read(int argc, char **argv, struct golden_options *options)
{
	static const struct option known[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "backend", required_argument, NULL, 'b' },
		{ "prepare", no_argument, NULL, 'p' },
		{ "no-prepare", no_argument, NULL, 'n' },
		{ "weights", required_argument, NULL, 'w' },
		{ 0 },
	};
	int option;
	char *end;
	long n;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 't':
			n = strtol(optarg, &end, 10);
			if (end == optarg || *end || n < 0 || n > 256) {
				(void)fprintf(stderr, "golden: --threads takes 0 to 256.\n");
				return -EXIT_WRONG;
			}
			options->threads = (int)n;
			break;
		case 'b':
			options->backend = optarg;
			break;
		case 'w':
			options->weights = optarg;
			break;
		case 'p':
		case 'n':
			options->prepare = option == 'p';
			break;
		default:
			usage();
			return -EXIT_WRONG;
		}
	}
	if (optind < argc)
		return optind;
	usage();
	return -EXIT_WRONG;
}

int main(int argc, char **argv)
{
	struct golden_options options = { .backend = "cpu", .prepare = true };
	struct totals totals = { 0 };
	int first, status = 0;

	first = options_read(argc, argv, &options);
	if (first < 0)
		return -first;
	for (int i = first; i < argc; i++) {
		int s = manifest_run(argv[i], &options, &totals);

		status = MAX_OF(status, s);
	}
	if (totals.broken)
		printf("FAIL: %d of %d manifests could not be run\n", totals.broken, argc - first);
	else if (!totals.compared)
		printf("FAIL: nothing was compared\n");
	else
		printf("%d of %d within tolerance, worst %.3e %s of %s\n",
		       totals.compared - totals.failed, totals.compared, totals.worst,
		       totals.worst_name, totals.worst_path);
	return status;
}
