/*
 * The state a stream carries, over 200 chunks: the CPU edits, and every other side is given the same noise and the
 * same clean latents chunk by chunk (teacher forcing) while it carries a state of its own. What differs then is
 * what the sides' arithmetic does to the state, and it must not grow.
 *
 * Sides: the GPU with each set of kernels, and the CPU with activations rounded to BF16 (tests/common/rounded.h):
 * what that one is off by nobody who stores BF16 can avoid. Networks: the trained demo model over its own clip;
 * and one of generated weights with heads of 112, which have kernels of their own.
 */
#include "tests/common/cuda_test.h"

#include <math.h>
#include <stdio.h>

#include "engine/synthetic.h"
#include "tests/common/editor_fixture.h"
#include "tests/common/editor_rig.h"
#include "tests/common/expected.h"
#include "tests/common/rounded.h"

enum {
	CHUNKS = 200,
	CHUNK_LATENTS = 3,
	CLIP = 19,	     /* latents that come with the demo model */
	PERIOD = 12,	     /* chunks of the clip to and fro */
	FIRST = 5,	     /* chunks before the first period that is looked at: around chunk 10 */
	REBASE_LATENTS = 90, /* six times on the way */
	WIDE_HEAD = 112,
	MOST_LATENT_FLOATS = 9 * 16 * FIXTURE_CHANNELS,
};

/* Chunks after which everything is compared. */
static const int looked_at[] = { 10, 50, 100, 150, CHUNKS };

enum { LOOKS = ARRAY_SIZE(looked_at) };

/*
 * Relative L2 of S and z after 200 chunks at most 1.5 times that after 10, and at most 5e-3 of any block after any
 * chunk, which is four roundings to BF16. What one block is off by moves with the picture, up to twice as much
 * from one chunk to another; so growth is asked of all blocks together, and of each block over a whole period of
 * the clip.
 */
#define GROWTH 1.5
#define STATE_TOLERANCE 5e-3

/* Of activations, against the CPU that rounds them as well, on average over all looks. */
#define BEYOND_ROUNDING 1.5

enum side_index { ORACLE, ROUNDED, CHIP, PORTABLE, SIDES };

static const char *const side_backends[SIDES] = { "cpu", "cpu", "cuda", "cuda-portable" };
static const char *const side_names[SIDES] = { "CPU", "CPU, BF16 activations", "GPU",
					       "GPU, portable kernels" };

enum part { PART_S, PART_Z, PART_LEFT, PART_K, PART_V, PART_VELOCITY, PARTS };

static const char *const part_names[PARTS] = { "S", "z", "left", "K", "V", "velocity" };

/* Squared; a relative L2 is the root of their ratio. */
struct distance {
	double difference, norm;
};

/* One network on all sides. */
struct drift {
	struct {
		struct editor *editor;
		struct op_context *op;
	} side[SIDES];
	/* The source latents of a chunk, [CHUNK_LATENTS][tokens][channels]. */
	void (*source)(int chunk, float *to, size_t count);
	struct distance off[SIDES][LOOKS][PARTS][MODEL_MAX_DEPTH];
	struct distance state[SIDES][CHUNKS][2][MODEL_MAX_DEPTH]; /* of S and z, every chunk */
};

static struct drift drift;
static float *clip; /* [CLIP][tokens][channels] */

/* --------------------------------------------------------------------------------- one comparison */

static double relative(const struct distance *d)
{
	return d->norm > 0 ? sqrt(d->difference / d->norm) : 0;
}

/* All blocks together. */
static double relative_of_all(const struct distance d[MODEL_MAX_DEPTH])
{
	struct distance sum = { 0 };

	for (int i = 0; i < MODEL_MAX_DEPTH; i++) {
		sum.difference += d[i].difference;
		sum.norm += d[i].norm;
	}
	return relative(&sum);
}

/* F32 values of what is in a side's memory: F32 there, or of its activation type. */
static float *values_fetch(enum side_index which, const void *from, size_t count, bool is_float)
{
	struct op_context *op = drift.side[which].op;
	const bool narrow = !is_float && op->backend->table->activation == KERNEL_BF16;
	float *values = malloc(count * sizeof(*values));
	uint16_t *half = (uint16_t *)(void *)values + count;

	assert_non_null(values);
	op_download(op, narrow ? (void *)half : values, from, count * (narrow ? 2 : 4));
	assert_int_equal(op_wait(op), 0);
	/* Upwards: the upper half of the memory holds what is not converted yet. */
	for (size_t i = 0; narrow && i < count; i++) {
		const uint32_t bits = (uint32_t)half[i] << 16;

		memcpy(&values[i], &bits, sizeof(bits));
	}
	return values;
}

static struct distance compare(enum side_index which, const void *got, const void *want,
			       size_t count, bool is_float)
{
	_cleanup_(freep) float *a = values_fetch(which, got, count, is_float);
	_cleanup_(freep) float *b = values_fetch(ORACLE, want, count, is_float);
	struct distance d = { 0 };

	for (size_t i = 0; i < count; i++) {
		d.difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		d.norm += (double)b[i] * b[i];
	}
	assert_true(isfinite(d.difference) && d.norm > 0);
	return d;
}

/* ------------------------------------------------------------------------------------- the chunks */

static size_t chunk_floats(void)
{
	const struct editor *e = drift.side[ORACLE].editor;

	return (size_t)CHUNK_LATENTS * (size_t)e->options.height * (size_t)e->options.width *
	       (size_t)e->config->in_channels;
}

static void chunk_begin(enum side_index which, int chunk, const float *noise)
{
	struct editor *e = drift.side[which].editor;
	struct op_context *op = drift.side[which].op;
	float source[CHUNK_LATENTS * MOST_LATENT_FLOATS];

	assert_true(chunk_floats() <= ARRAY_SIZE(source));
	drift.source(chunk, source, chunk_floats());
	op_upload(op, editor_source(e), source, chunk_floats() * sizeof(*source));
	assert_int_equal(op_wait(op), 0);
	assert_int_equal(editor_begin(e, op, CHUNK_LATENTS, (uint64_t)chunk * CHUNK_LATENTS, noise),
			 0);
}

static void latent_set(enum side_index which, const float *values)
{
	op_upload(drift.side[which].op, editor_latent(drift.side[which].editor), values,
		  chunk_floats() * sizeof(*values));
}

/* The CPU's stream: its noise and what it makes of the chunk; its first velocity is in the scratch again. */
static void oracle_edit(int chunk, bool looks, float **ret_noise, float **ret_clean)
{
	struct editor *e = drift.side[ORACLE].editor;
	struct op_context *op = drift.side[ORACLE].op;

	chunk_begin(ORACLE, chunk, NULL);
	*ret_noise = values_fetch(ORACLE, editor_latent(e), chunk_floats(), true);
	for (int step = 0; step < e->stream->steps; step++)
		assert_int_equal(editor_denoise(e, op, step), 0);
	editor_check(e, op);
	assert_int_equal(op_wait(op), 0);
	assert_true(editor_is_sane(e));
	*ret_clean = values_fetch(ORACLE, editor_latent(e), chunk_floats(), true);
	if (!looks)
		return;
	latent_set(ORACLE, *ret_noise);
	assert_int_equal(editor_denoise(e, op, 0), 0);
}

static void states_compare(enum side_index which, int chunk)
{
	const struct cache *a = &drift.side[which].editor->cache;
	const struct cache *b = &drift.side[ORACLE].editor->cache;
	const struct dit_config *config = a->config;
	const size_t c = (size_t)config->hidden_size;

	assert_int_equal(a->chunks, b->chunks);
	assert_int_equal(a->position, b->position);
	for (int i = 0; i < config->depth; i++) {
		const struct cache_block *x = &a->set[a->current][i], *y = &b->set[b->current][i];

		if (config->softmax[i])
			continue;
		drift.state[which][chunk][PART_S][i] =
			compare(which, x->state, y->state, c * (size_t)config->head_dim, true);
		drift.state[which][chunk][PART_Z][i] =
			compare(which, x->normaliser, y->normaliser, c, true);
	}
}

static void windows_compare(enum side_index which, int look)
{
	const struct cache *a = &drift.side[which].editor->cache;
	const struct cache *b = &drift.side[ORACLE].editor->cache;
	const size_t frame = (size_t)a->tokens_per_frame * (size_t)a->config->hidden_size;
	struct distance(*off)[MODEL_MAX_DEPTH] = drift.off[which][look];

	for (int i = 0; i < a->config->depth; i++) {
		const struct cache_block *x = &a->set[a->current][i], *y = &b->set[b->current][i];

		off[PART_LEFT][i] = compare(which, x->left, y->left, frame, false);
		if (!a->config->softmax[i])
			continue;
		off[PART_K][i] = compare(which, x->k, y->k, CHUNK_LATENTS * frame, false);
		off[PART_V][i] = compare(which, x->v, y->v, CHUNK_LATENTS * frame, false);
	}
}

static void chunk_run(int chunk, int look)
{
	_cleanup_(freep) float *noise = NULL;
	_cleanup_(freep) float *clean = NULL;

	oracle_edit(chunk, look >= 0, &noise, &clean);
	for (int i = ROUNDED; i < SIDES; i++) {
		struct editor *e = drift.side[i].editor;

		chunk_begin(i, chunk, noise);
		assert_int_equal(editor_denoise(e, drift.side[i].op, 0), 0);
		if (look >= 0)
			drift.off[i][look][PART_VELOCITY][0] = compare(
				i, e->scratch.velocity, drift.side[ORACLE].editor->scratch.velocity,
				chunk_floats(), false);
	}
	for (int i = 0; i < SIDES; i++) {
		latent_set(i, clean);
		assert_int_equal(editor_save(drift.side[i].editor, drift.side[i].op), 1);
	}
	for (int i = ROUNDED; i < SIDES; i++) {
		states_compare(i, chunk);
		if (look < 0)
			continue;
		memcpy(drift.off[i][look], drift.state[i][chunk], sizeof(drift.state[i][chunk]));
		windows_compare(i, look);
	}
}

/* --------------------------------------------------------------------------------- what must hold */

static void look_print(enum side_index which, int look)
{
	printf("  chunk %3d, %s:", looked_at[look], side_names[which]);
	for (int part = 0; part < PARTS; part++) {
		const struct distance *d = drift.off[which][look][part];

		printf(" %s", part_names[part]);
		for (int i = 0; i < MODEL_MAX_DEPTH; i++)
			if (d[i].norm > 0)
				printf(" %.2e", relative(&d[i]));
		if (part <= PART_Z)
			printf(" (all %.2e)", relative_of_all(d));
	}
	printf("\n");
}

/* The mean over a period that begins after `first` chunks. */
static double period_mean(enum side_index which, enum part part, int block, int first)
{
	double sum = 0;

	for (int chunk = first; chunk < first + PERIOD; chunk++)
		sum += relative(&drift.state[which][chunk][part][block]);
	return sum / PERIOD;
}

static void state_must_hold(enum side_index which, enum part part)
{
	const double first = relative_of_all(drift.off[which][0][part]);
	const double last = relative_of_all(drift.off[which][LOOKS - 1][part]);
	double worst = 0;

	for (int i = 0; i < MODEL_MAX_DEPTH; i++) {
		const double early = period_mean(which, part, i, FIRST);
		const double late = period_mean(which, part, i, CHUNKS - PERIOD);

		for (int chunk = 0; chunk < CHUNKS; chunk++)
			worst = MAX_OF(worst, relative(&drift.state[which][chunk][part][i]));
		if (early > 0)
			printf("  %s, %s, block %d: %.2e around chunk 10, %.2e at the end\n",
			       side_names[which], part_names[part], i, early, late);
		assert_true(late <= GROWTH * early);
	}
	printf("  %s, %s: after 200 chunks %.2f of that after 10, worst of any block and chunk "
	       "%.2e\n",
	       side_names[which], part_names[part], last / first, worst);
	assert_true(last <= GROWTH * first);
	assert_true(worst <= STATE_TOLERANCE);
}

static double looks_mean(enum side_index which, enum part part, int block)
{
	double sum = 0;

	for (int look = 0; look < LOOKS; look++)
		sum += relative(&drift.off[which][look][part][block]);
	return sum / LOOKS;
}

static void activations_must_hold(enum side_index which)
{
	double worst = 0;

	for (int part = PART_LEFT; part < PARTS; part++)
		for (int i = 0; i < MODEL_MAX_DEPTH; i++) {
			const double rounded = looks_mean(ROUNDED, part, i);

			if (rounded > 0)
				worst = MAX_OF(worst, looks_mean(which, part, i) / rounded);
		}
	printf("  %s: left frames, K, V, velocity at most %.2f times what rounding them costs\n",
	       side_names[which], worst);
	assert_true(worst <= BEYOND_ROUNDING);
}

/* Every pass was recorded within the first chunks; re-basing changes nothing about them. */
static void graphs_must_hold(enum side_index which, uint64_t recorded)
{
	const struct pass_graphs *g = &drift.side[which].editor->graphs;

	printf("  %s: %d graphs, %d launches, %d passes op by op\n", side_names[which],
	       (int)g->recorded, (int)g->launched, (int)g->plain);
	assert_int_equal(g->recorded, recorded);
	assert_true(drift.side[which].editor->rebases >= 6);
}

static void drift_run(void)
{
	uint64_t recorded[SIDES] = { 0 };

	memset(drift.off, 0, sizeof(drift.off));
	memset(drift.state, 0, sizeof(drift.state));
	for (int chunk = 0, look = 0; chunk < CHUNKS; chunk++) {
		const bool looks = chunk + 1 == looked_at[look];

		chunk_run(chunk, looks ? look : -1);
		for (int i = ROUNDED; i < SIDES && looks; i++)
			look_print(i, look);
		for (int i = ROUNDED; i < SIDES && looks && look == 0; i++)
			recorded[i] = drift.side[i].editor->graphs.recorded;
		look += looks;
	}
	for (int i = CHIP; i < SIDES; i++) {
		state_must_hold(i, PART_S);
		state_must_hold(i, PART_Z);
		activations_must_hold(i);
		graphs_must_hold(i, recorded[i]);
	}
}

/* --------------------------------------------------------------------------------- the trained model */

static struct stream_fixture trained[SIDES]; /* their models alone */
static struct editor_fixture *trained_editor[SIDES];

static struct sana_model *model_open(const char *backend)
{
	const struct sana_model_options options = { .directory = EXPECTED_DEMO,
						    .backend = backend };
	struct sana_error error = { 0 };
	struct sana_model *model = NULL;

	if (sana_model_open(&options, &model, &error) < 0)
		fail_msg("%s", error.text);
	return model;
}

/* The clip to and fro without an end. */
static void clip_source(int chunk, float *to, size_t count)
{
	const size_t latent = count / CHUNK_LATENTS;

	for (int i = 0; i < CHUNK_LATENTS; i++) {
		const int at = (chunk * CHUNK_LATENTS + i) % (2 * (CLIP - 1));

		memcpy(to + (size_t)i * latent,
		       clip + (size_t)(at < CLIP ? at : 2 * (CLIP - 1) - at) * latent,
		       latent * sizeof(*to));
	}
}

/* The file has channels first. */
static void clip_load(size_t tokens)
{
	const size_t places = CLIP * tokens, count = places * FIXTURE_CHANNELS;
	_cleanup_(freep) float *file = expected_tensor("source_latents", count * sizeof(*file));

	clip = malloc(count * sizeof(*clip));
	assert_non_null(clip);
	assert_non_null(file);
	for (size_t channel = 0; channel < FIXTURE_CHANNELS; channel++)
		for (size_t i = 0; i < places; i++)
			clip[i * FIXTURE_CHANNELS + channel] = file[channel * places + i];
}

static int trained_open(void **state)
{
	struct sana_stream_options options;
	struct sana_prompt *prompt;

	(void)state;
	sana_stream_options_init(&options);
	options.width = FIXTURE_WIDTH;
	options.height = FIXTURE_HEIGHT;
	options.first_chunk_latents = CHUNK_LATENTS;
	options.rebase_latents = REBASE_LATENTS;
	options.seed = 21;
	for (int i = 0; i < SIDES; i++) {
		trained[i].model = model_open(side_backends[i]);
		if (i == ROUNDED)
			trained[i].model->backend.table = rounded_backend();
		trained_editor[i] = editor_fixture_open(&trained[i], &options);
		drift.side[i].editor = &trained_editor[i]->editor;
		drift.side[i].op = &trained_editor[i]->op;
	}
	assert_int_equal(sana_prompt_create(trained[ORACLE].model, "make it sepia", &prompt, NULL),
			 0);
	for (int i = 0; i < SIDES; i++)
		editor_fixture_caption(trained_editor[i], prompt);
	(void)sana_prompt_unref(prompt);
	clip_load(chunk_floats() / CHUNK_LATENTS / FIXTURE_CHANNELS);
	drift.source = clip_source;
	return 0;
}

static int trained_close(void **state)
{
	(void)state;
	for (int i = 0; i < SIDES; i++) {
		editor_fixture_close(trained_editor[i]);
		(void)sana_model_unref(trained[i].model);
	}
	free(clip);
	return 0;
}

static void trained_model(void **state)
{
	(void)state;
	drift_run();
}

/* -------------------------------------------------------------------------------------- wide heads */

static struct editor_rig rig[SIDES];

static void generated_source(int chunk, float *to, size_t count)
{
	synthetic_fill("drift", "source", 0, 1.7320508, (size_t)chunk * count, count, to);
}

static int wide_open(void **state)
{
	(void)state;
	for (int i = 0; i < SIDES; i++) {
		editor_rig_open_on(&rig[i], side_backends[i],
				   i == ROUNDED ? rounded_backend() : NULL, WIDE_HEAD,
				   CHUNK_LATENTS, REBASE_LATENTS);
		drift.side[i].editor = &rig[i].editor;
		drift.side[i].op = &rig[i].op;
	}
	drift.source = generated_source;
	return 0;
}

static int wide_close(void **state)
{
	(void)state;
	for (int i = 0; i < SIDES; i++)
		editor_rig_close(&rig[i]);
	return 0;
}

/* Where this chip has kernels of its own they are another set than the portable ones. */
static void wide_heads(void **state)
{
	char kernels[SIDES][128];

	(void)state;
	drift_run();
	for (int i = CHIP; i < SIDES; i++) {
		const struct backend *b = drift.side[i].op->backend;

		(void)snprintf(kernels[i], sizeof(kernels[i]), "%s",
			       b->table->kernels_used(b->device, KERNEL_OP_attention));
		printf("  %s: attention by %s\n", side_names[i], kernels[i]);
	}
	if (strstr(kernels[CHIP], "wgmma"))
		assert_null(strstr(kernels[PORTABLE], "wgmma"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(trained_model, trained_open, trained_close),
		cmocka_unit_test_setup_teardown(wide_heads, wide_open, wide_close),
	};
	struct cuda_test gpu;

	/* Where there is no GPU this is the end. */
	cuda_test_open(&gpu);
	cuda_test_close(&gpu);
	/* A test's name or pattern: that one alone. */
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("cuda-drift", tests, NULL, NULL);
}
