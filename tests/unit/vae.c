/* The VAE beyond its goldens: bookkeeping of frames, contexts, resamplers alone, tables and cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/file.h"
#include "engine/synthetic.h"
#include "engine/vae.h"

enum { FRAMES_MAX = 33, LATENTS_MAX = 9, HEIGHT = 16, WIDTH = 24 };

/* FP32 sums in another order: the goldens' noise floor is 1e-6, and this net is shallower. */
#define ROUNDING 1e-5

/* All three kinds of resampler, a block and (in the second one) mid blocks without resnets. */
static const char small_text[] =
	"{\"in_channels\": 3, \"out_channels\": 3, \"latent_channels\": 4, \"patch_size\": 2,"
	" \"patch_size_t\": 1, \"block_out_channels\": [8, 16, 32],"
	" \"decoder_block_out_channels\": [8, 16, 32], \"layers_per_block\": [1, 0, 2, 1],"
	" \"decoder_layers_per_block\": [1, 2, 0, 1],"
	" \"spatio_temporal_scaling\": [true, true, true],"
	" \"decoder_spatio_temporal_scaling\": [true, true, true],"
	" \"downsample_type\": [\"spatial\", \"temporal\", \"spatiotemporal\"],"
	" \"upsample_type\": [\"temporal\", \"spatial\", \"spatiotemporal\"],"
	" \"upsample_residual\": [true, true, true], \"upsample_factor\": [2, 2, 2],"
	" \"timestep_conditioning\": false, \"scaling_factor\": 1.0, \"encoder_causal\": true,"
	" \"decoder_causal\": true, \"encoder_spatial_padding_mode\": \"zeros\","
	" \"decoder_spatial_padding_mode\": \"reflect\", \"spatial_compression_ratio\": 8,"
	" \"temporal_compression_ratio\": 4}";

struct bench {
	struct backend backend;
	struct kernel_queue *queue;
	struct op_context op;
	struct vae_config config;
	struct weights *table;
	struct vae_weights weights;
	struct vae_encoder encoder;
	struct vae_decoder decoder, whole;
	void *block;
	size_t block_bytes;
	size_t plane, frame; /* floats of one latent, of one frame's patches */
	float *patches;	     /* [FRAMES_MAX] */
	float *latents;	     /* [LATENTS_MAX + 1] */
	float *out;	     /* [LATENTS_MAX·temporal ratio] */
};

static int walk_with_statistics(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, true, visit, context);
}

/* A copy of the table in which tensors with `part` in their name are zero. */
static struct weights *table_with_zeros(const struct weights *from, const char *part)
{
	struct weights *table;

	assert_int_equal(weights_create(&table), 0);
	for (size_t i = 0; i < weights_count(from); i++) {
		struct weight_tensor tensor = *weights_at(from, i);
		size_t count = 1;
		void *zeros;

		for (int d = 0; d < tensor.rank; d++)
			count *= (size_t)tensor.shape[d];
		zeros = calloc(count, sizeof(float));
		if (strstr(tensor.name, part))
			tensor.data = zeros;
		assert_int_equal(weights_add(table, &tensor, true), 0);
		free(zeros);
	}
	return table;
}

/* With other values than 0 and 1 in latents_mean and latents_std. */
static struct weights *table_with_statistics(const struct weights *from, int channels)
{
	struct weights *table;

	assert_int_equal(weights_create(&table), 0);
	for (size_t i = 0; i < weights_count(from); i++) {
		struct weight_tensor tensor = *weights_at(from, i);
		float values[16];

		assert_true(channels <= 16);
		for (int c = 0; c < channels; c++)
			values[c] = tensor.name[8] == 'm' ? 0.25f * (float)c - 1 : 0.5f + (float)c;
		if (strncmp(tensor.name, "latents_", 8) == 0)
			tensor.data = values;
		assert_int_equal(weights_add(table, &tensor, true), 0);
	}
	return table;
}

static void bench_layout(struct bench *b, struct arena *arena, bool measuring, bool with_statistics)
{
	struct loader loader = { .backend = &b->backend,
				 .queue = b->queue,
				 .table = b->table,
				 .arena = arena,
				 .measuring = measuring,
				 .prepare = true,
				 .line = "weights" };

	vae_weights_load(&loader, &b->config, with_statistics, &b->weights);
	assert_int_equal(loader.status, 0);
	vae_encoder_layout_state(&b->encoder, &b->backend, arena);
	vae_encoder_layout_scratch(&b->encoder, &b->backend, arena);
	vae_decoder_layout_state(&b->decoder, &b->backend, arena);
	vae_decoder_layout_scratch(&b->decoder, &b->backend, arena);
	vae_decoder_layout_state(&b->whole, &b->backend, arena);
	vae_decoder_layout_scratch(&b->whole, &b->backend, arena);
	b->patches = arena_take(arena, "pixels", FRAMES_MAX * b->frame, sizeof(float));
	b->latents = arena_take(arena, "latents", (LATENTS_MAX + 1) * b->plane, sizeof(float));
	b->out = arena_take(arena, "pixels",
			    LATENTS_MAX * (size_t)b->config.temporal_ratio * b->frame,
			    sizeof(float));
}

static void bench_plan(struct bench *b)
{
	struct op_context planning = { .backend = &b->backend, .planning = true };
	struct arena arena;
	int made;

	arena_measure(&arena);
	bench_layout(b, &arena, true, true);
	assert_int_equal(vae_encoder_run(&b->encoder, &planning, b->patches, FRAMES_MAX, b->latents,
					 &made),
			 0);
	assert_int_equal(
		vae_decoder_run(&b->decoder, &planning, b->latents, LATENTS_MAX, b->out, &made), 0);
	assert_int_equal(
		vae_decoder_run(&b->whole, &planning, b->latents, LATENTS_MAX, b->out, &made), 0);
	b->op.workspace.bytes = planning.workspace.bytes;
	(void)arena_take(&arena, "workspace", 1, planning.workspace.bytes);
	assert_false(arena.overflowed);
	b->block_bytes = arena.used;
}

/* Takes the config as it is in *b; `table` is then b's. NULL: synthetic weights. */
static void bench_open(struct bench *b, struct weights *table, bool with_statistics, int height,
		       int width)
{
	const struct vae_config *c = &b->config;
	struct arena arena;

	assert_int_equal(backend_open("cpu", &(struct kernel_device_options){ .threads = 1 },
				      &b->backend, NULL),
			 0);
	assert_int_equal(b->backend.table->queue_create(b->backend.device, 0, &b->queue), 0);
	b->table = table;
	if (!table)
		assert_int_equal(
			synthetic_weights("vae", 1, walk_with_statistics, c, &b->table, NULL), 0);
	b->frame = (size_t)height * width * c->pixel_channels;
	b->plane = (size_t)(height / c->spatial_ratio) * (width / c->spatial_ratio) *
		   c->latent_channels;
	assert_int_equal(vae_encoder_init(&b->encoder, c, &b->weights, height, width, FRAMES_MAX),
			 0);
	assert_int_equal(vae_decoder_init(&b->decoder, c, &b->weights, height, width, LATENTS_MAX,
					  false),
			 0);
	assert_int_equal(
		vae_decoder_init(&b->whole, c, &b->weights, height, width, LATENTS_MAX, true), 0);
	bench_plan(b);
	assert_int_equal(b->backend.table->allocate(b->backend.device, b->block_bytes, &b->block),
			 0);
	arena_place(&arena, b->block, b->block_bytes);
	bench_layout(b, &arena, false, with_statistics);
	b->op.backend = &b->backend;
	b->op.queue = b->queue;
	b->op.workspace.data = arena_take(&arena, "workspace", 1, b->op.workspace.bytes);
	assert_false(arena.overflowed);
	synthetic_fill("unit", "patches", 0, 1, 0, FRAMES_MAX * b->frame, b->patches);
	synthetic_fill("unit", "latents", 0, 1.5, 0, LATENTS_MAX * b->plane, b->latents);
}

static void bench_close(struct bench *b)
{
	b->backend.table->queue_destroy(b->backend.device, b->queue);
	b->backend.table->release(b->backend.device, b->block, b->block_bytes);
	backend_close(&b->backend);
	weights_destroy(b->table);
	*b = (struct bench){ 0 };
}

static void small_open(struct bench *b)
{
	struct sana_error error = { 0 };

	*b = (struct bench){ 0 };
	if (vae_config_parse(small_text, sizeof(small_text) - 1, "small", &b->config, &error) < 0)
		fail_msg("%s", error.text);
	bench_open(b, NULL, true, HEIGHT, WIDTH);
}

static double distance(const float *got, const float *want, size_t count)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < count; i++) {
		difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	return sqrt(difference / norm);
}

/* Encodes frames [first, first + count) and puts the latents at *latents; returns how many. */
static int encode(struct bench *b, int first, int count, float *latents)
{
	int made = -1;

	assert_int_equal(vae_encoder_run(&b->encoder, &b->op, b->patches + (size_t)first * b->frame,
					 count, latents, &made),
			 0);
	assert_int_equal(op_wait(&b->op), 0);
	return made;
}

static int decode(struct bench *b, struct vae_decoder *decoder, int first, int count, float *out)
{
	int made = -1;

	assert_int_equal(vae_decoder_run(decoder, &b->op, b->latents + (size_t)first * b->plane,
					 count, out, &made),
			 0);
	assert_int_equal(op_wait(&b->op), 0);
	return made;
}

/* Latents exist after frames 1, 1 + r, 1 + 2r, … and not before, whatever the pieces. */
static void check_frame_counts(struct bench *b)
{
	const int ratio = b->config.temporal_ratio;
	const int pieces[][4] = {
		{ 1, 1, 1, 1 }, { 1, 4, 8, 4 }, { 3, 5, 9, 2 }, { 2, 7, 1, 6 }, { 17, 16, 33, 33 }
	};

	for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
		int fed = 0, latents = 0;

		vae_encoder_reset(&b->encoder);
		for (int i = 0; fed < FRAMES_MAX; i++) {
			const int piece = MIN_OF(pieces[p][i % 4], FRAMES_MAX - fed);

			latents += encode(b, fed, piece, b->latents);
			fed += piece;
			assert_int_equal(latents, (fed - 1) / ratio + 1);
		}
	}
	for (int n = 1; n <= 3; n++) {
		vae_decoder_reset(&b->decoder);
		assert_int_equal(decode(b, &b->decoder, 0, n, b->out), (n - 1) * ratio + 1);
		assert_int_equal(decode(b, &b->decoder, n, n, b->out), n * ratio);
		assert_int_equal(decode(b, &b->decoder, n, 1, b->out), ratio);
		assert_int_equal(decode(b, &b->whole, 0, n, b->out), (n - 1) * ratio + 1);
		assert_int_equal(decode(b, &b->whole, 0, n, b->out), (n - 1) * ratio + 1);
	}
}

static void frames_are_counted(void **state)
{
	struct bench b;

	(void)state;
	small_open(&b);
	check_frame_counts(&b);
	bench_close(&b);
}

/* Any pieces give the values of the whole clip, with every kind of resampler. */
static void pieces_give_the_whole(void **state)
{
	const int pieces[] = { 1, 3, 5, 2, 1, 7, 4, 10 }; /* together FRAMES_MAX */
	struct bench b;
	float *whole, *parts;
	int all, made = 0, fed = 0;
	double worst;

	(void)state;
	small_open(&b);
	whole = calloc((LATENTS_MAX + 1) * b.plane, sizeof(*whole));
	parts = calloc((LATENTS_MAX + 1) * b.plane, sizeof(*parts));
	all = encode(&b, 0, FRAMES_MAX, b.latents);
	memcpy(whole, b.latents, (size_t)all * b.plane * sizeof(float));
	vae_encoder_reset(&b.encoder);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		int n = encode(&b, fed, pieces[i], b.latents);

		memcpy(parts + (size_t)made * b.plane, b.latents,
		       (size_t)n * b.plane * sizeof(float));
		made += n;
		fed += pieces[i];
	}
	assert_int_equal(made, all);
	worst = distance(parts, whole, (size_t)all * b.plane);
	print_message("encoder, 8 odd pieces against one: %.2e\n", worst);
	assert_true(worst < ROUNDING);

	free(whole);
	free(parts);
	bench_close(&b);
}

static void latents_one_by_one_give_the_whole(void **state)
{
	struct bench b;
	float *whole;
	size_t frames = 0;
	double worst;

	(void)state;
	small_open(&b);
	frames = (size_t)decode(&b, &b.decoder, 0, 5, b.out);
	whole = malloc(frames * b.frame * sizeof(*whole));
	memcpy(whole, b.out, frames * b.frame * sizeof(float));
	vae_decoder_reset(&b.decoder);
	frames = 0;
	for (int i = 0; i < 5; i++)
		frames += (size_t)decode(&b, &b.decoder, i, 1, b.out + frames * b.frame);
	worst = distance(b.out, whole, frames * b.frame);
	print_message("decoder, 5 single latents against one piece: %.2e\n", worst);
	assert_true(worst < ROUNDING);
	/* The whole-clip decoder looks ahead, so it is another function. */
	(void)decode(&b, &b.whole, 0, 5, b.out);
	assert_true(distance(b.out, whole, frames * b.frame) > 1e-2);
	free(whole);
	bench_close(&b);
}

/* Replicated contexts and the duplicated frame keep a still video constant in time. */
static void still_input_gives_equal_latents(void **state)
{
	struct bench b;
	double worst = 0;
	int made;

	(void)state;
	small_open(&b);
	for (int t = 1; t < FRAMES_MAX; t++)
		memcpy(b.patches + (size_t)t * b.frame, b.patches, b.frame * sizeof(float));
	made = encode(&b, 0, FRAMES_MAX, b.latents);
	assert_int_equal(made, LATENTS_MAX);
	for (int i = 1; i < made; i++)
		worst = fmax(worst, distance(b.latents + (size_t)i * b.plane, b.latents, b.plane));
	print_message("still input, worst latent against the first: %.2e\n", worst);
	assert_true(worst < ROUNDING);
	bench_close(&b);
}

static void reset_forgets_everything(void **state)
{
	struct bench b;
	float *fresh, *frames;
	int made, out;

	(void)state;
	small_open(&b);
	made = encode(&b, 0, 9, b.latents);
	fresh = malloc((size_t)made * b.plane * sizeof(*fresh));
	memcpy(fresh, b.latents, (size_t)made * b.plane * sizeof(float));
	(void)encode(&b, 9, 6, b.latents + 4 * b.plane); /* leaves frames waiting */
	vae_encoder_reset(&b.encoder);
	assert_int_equal(encode(&b, 0, 9, b.latents), made);
	assert_memory_equal(b.latents, fresh, (size_t)made * b.plane * sizeof(float));

	out = decode(&b, &b.decoder, 0, 3, b.out);
	frames = malloc((size_t)out * b.frame * sizeof(*frames));
	memcpy(frames, b.out, (size_t)out * b.frame * sizeof(float));
	(void)decode(&b, &b.decoder, 3, 2, b.out);
	vae_decoder_reset(&b.decoder);
	assert_int_equal(decode(&b, &b.decoder, 0, 3, b.out), out);
	assert_memory_equal(b.out, frames, (size_t)out * b.frame * sizeof(float));
	free(fresh);
	free(frames);
	bench_close(&b);
}

/* A plan made in mid-stream, and a run that was refused, leave the stream as it was. */
static void plans_and_refusals_change_nothing(void **state)
{
	struct bench b;
	struct op_context planning;
	float *plain;
	int made, n;

	(void)state;
	small_open(&b);
	plain = malloc(10 * b.plane * sizeof(*plain));
	(void)encode(&b, 0, 6, b.latents);
	made = encode(&b, 6, 9, b.latents);
	memcpy(plain, b.latents, (size_t)made * b.plane * sizeof(float));

	vae_encoder_reset(&b.encoder);
	(void)encode(&b, 0, 6, b.latents);
	planning = (struct op_context){ .backend = &b.backend, .planning = true };
	assert_int_equal(vae_encoder_run(&b.encoder, &planning, b.patches, 8, b.latents, &n), 0);
	assert_true(planning.workspace.bytes > 0);
	assert_int_equal(vae_encoder_run(&b.encoder, &b.op, b.patches, 0, b.latents, &n), -EINVAL);
	assert_int_equal(vae_encoder_run(&b.encoder, &b.op, b.patches, FRAMES_MAX + 1, b.latents,
					 &n),
			 -EINVAL);
	assert_int_equal(encode(&b, 6, 9, b.latents), made);
	assert_memory_equal(b.latents, plain, (size_t)made * b.plane * sizeof(float));
	free(plain);
	bench_close(&b);
}

static void statistics_normalise(void **state)
{
	struct bench b, n;
	const struct vae_config *c = &b.config;
	double worst = 0;
	int made;

	(void)state;
	small_open(&b);
	n = (struct bench){ .config = b.config };
	bench_open(&n, table_with_statistics(b.table, c->latent_channels), true, HEIGHT, WIDTH);
	made = encode(&b, 0, 9, b.latents);
	assert_int_equal(encode(&n, 0, 9, n.latents), made);
	for (size_t i = 0; i < (size_t)made * b.plane; i++) {
		const size_t channel = i % (size_t)c->latent_channels;
		const double want = ((double)b.latents[i] - (0.25 * (double)channel - 1)) /
				    (0.5 + (double)channel);

		worst = fmax(worst, fabs((double)n.latents[i] - want));
	}
	print_message("normalised latents: worst difference %.2e\n", worst);
	assert_true(worst < ROUNDING);
	/* Both decoders now see the same means. */
	(void)decode(&b, &b.decoder, 0, made, b.out);
	(void)decode(&n, &n.decoder, 0, made, n.out);
	worst = distance(n.out, b.out, 9 * b.frame);
	print_message("decoded from normalised latents: %.2e\n", worst);
	assert_true(worst < ROUNDING);
	bench_close(&b);
	bench_close(&n);
}

/* ---------------------------------------------------------------------------- resamplers alone */

/* Keeps what went into a resampler and what came out of it. */
struct kept {
	const char *name;
	float *data;
	int frames, height, width, channels;
};

struct keeper {
	struct kept in, out;
};

static void keep(void *context, const char *module, const void *data, int frames, int height,
		 int width, int channels)
{
	struct keeper *keeper = context;
	struct kept *kept = strcmp(module, keeper->in.name) == 0  ? &keeper->in :
			    strcmp(module, keeper->out.name) == 0 ? &keeper->out :
								    NULL;
	const size_t bytes = sizeof(float) * frames * height * width * channels;

	if (!kept)
		return;
	free(kept->data);
	kept->data = malloc(bytes);
	memcpy(kept->data, data, bytes); /* the CPU back end has run it already */
	kept->frames = frames;
	kept->height = height;
	kept->width = width;
	kept->channels = channels;
}

static float at(const struct kept *kept, int t, int h, int w, int c)
{
	const size_t row = ((size_t)t * kept->height + h) * kept->width + w;

	return kept->data[row * kept->channels + c];
}

static void zeros_open(struct bench *b, const char *part)
{
	struct weights *table;

	small_open(b);
	table = table_with_zeros(b->table, part);
	bench_close(b);
	assert_int_equal(
		vae_config_parse(small_text, sizeof(small_text) - 1, "small", &b->config, NULL), 0);
	bench_open(b, table, true, HEIGHT, WIDTH);
}

/*
 * Encoder block 1 has no resnets: its output is that of its temporal down-sampler, whose convolution
 * is zero here. 8 → 16 channels, P = 2, G = 1: output o is source channel o/2 of frame o%2.
 */
static void down_sampler_without_convolution(void **state)
{
	struct keeper keeper = { .in.name = "encoder.down_blocks.0",
				 .out.name = "encoder.down_blocks.1" };
	const struct vae_tap tap = { keep, &keeper };
	struct bench b;
	int checked = 0;

	(void)state;
	zeros_open(&b, "samplers");
	b.encoder.tap = &tap;
	(void)encode(&b, 0, 9, b.latents);
	assert_int_equal(keeper.in.frames, 9);
	assert_int_equal(keeper.out.frames, 5);
	assert_int_equal(keeper.out.channels, 2 * keeper.in.channels);
	for (int t = 0; t < keeper.out.frames; t++)
		for (int h = 0; h < keeper.out.height; h++)
			for (int w = 0; w < keeper.out.width; w++)
				for (int o = 0; o < keeper.out.channels; o++, checked++) {
					/* the first frame stands twice in front */
					const int source = MAX_OF(2 * t + o % 2 - 1, 0);

					assert_float_equal(at(&keeper.out, t, h, w, o),
							   at(&keeper.in, source, h, w, o / 2),
							   1e-6);
				}
	print_message("temporal down-sampler: %d values\n", checked);
	free(keeper.in.data);
	free(keeper.out.data);
	bench_close(&b);
}

/*
 * Encoder block 0 with its resnets zero too (x + 0): conv_in's output goes into a spatial down-sampler,
 * 4 → 8 channels, P = 4, G = 2: output o is the mean of the horizontal pair of source channel o/2, row
 * o%2.
 */
static void spatial_down_sampler_averages_pairs(void **state)
{
	struct keeper keeper = { .in.name = "encoder.conv_in",
				 .out.name = "encoder.down_blocks.0" };
	const struct vae_tap tap = { keep, &keeper };
	struct bench b;
	int checked = 0;

	(void)state;
	zeros_open(&b, "down_blocks");
	b.encoder.tap = &tap;
	(void)encode(&b, 0, 5, b.latents);
	assert_int_equal(keeper.in.frames, 5);
	assert_int_equal(keeper.out.frames, 5);
	for (int t = 0; t < keeper.out.frames; t++)
		for (int h = 0; h < keeper.out.height; h++)
			for (int w = 0; w < keeper.out.width; w++)
				for (int o = 0; o < keeper.out.channels; o++, checked++) {
					const int row = 2 * h + o % 2;
					const float mean =
						(at(&keeper.in, t, row, 2 * w, o / 2) +
						 at(&keeper.in, t, row, 2 * w + 1, o / 2)) /
						2;

					assert_float_equal(at(&keeper.out, t, h, w, o), mean, 1e-6);
				}
	print_message("spatial down-sampler: %d values\n", checked);
	free(keeper.in.data);
	free(keeper.out.data);
	bench_close(&b);
}

/*
 * Decoder block 2 with zero resnets and up-sampler: 8 → 4 channels, stride (2,2,2), P = 8, one group of
 * source channels tiled 4 times. The first call drops one frame, the second none.
 */
static void up_sampler_without_convolution(void **state)
{
	struct keeper keeper = { .in.name = "decoder.up_blocks.1",
				 .out.name = "decoder.up_blocks.2" };
	const struct vae_tap tap = { keep, &keeper };
	struct bench b;
	int checked = 0;

	(void)state;
	zeros_open(&b, "up_blocks.2");
	b.decoder.tap = &tap;
	for (int call = 0; call < 2; call++) {
		const int dropped = call == 0;

		(void)decode(&b, &b.decoder, 2 * call, 2, b.out);
		assert_int_equal(keeper.in.channels, 8);
		assert_int_equal(keeper.out.channels, 4);
		assert_int_equal(keeper.out.frames, 2 * keeper.in.frames - dropped);
		for (int t = 0; t < keeper.out.frames; t++)
			for (int h = 0; h < keeper.out.height; h++)
				for (int w = 0; w < keeper.out.width; w++)
					for (int o = 0; o < 4; o++, checked++) {
						const int s = t + dropped;
						const int q = (s % 2 * 2 + h % 2) * 2 + w % 2;

						assert_float_equal(at(&keeper.out, t, h, w, o),
								   at(&keeper.in, s / 2, h / 2,
								      w / 2, q),
								   1e-6);
					}
	}
	print_message("up-sampler: %d values\n", checked);
	free(keeper.in.data);
	free(keeper.out.data);
	bench_close(&b);
}

/* -------------------------------------------------------------------------------- tables, cost */

static void check_lines(const struct vae_config *config, char half, int height, int width,
			const struct vae_context_line *want, int count, size_t total)
{
	struct vae_context_line lines[VAE_MAX_CONTEXT_LINES];
	size_t bytes = 0;

	assert_int_equal(vae_context_lines(config, half, height, width, KERNEL_BF16, lines), count);
	for (int i = 0; i < count; i++) {
		print_message("%-32s %2d  %4d×2×%d×%d  %9zu  %9zu\n", lines[i].name,
			      lines[i].convolutions, lines[i].channels, lines[i].height,
			      lines[i].width, lines[i].bytes_each, lines[i].bytes);
		assert_string_equal(lines[i].name, want[i].name);
		assert_int_equal(lines[i].convolutions, want[i].convolutions);
		assert_int_equal(lines[i].channels, want[i].channels);
		assert_int_equal(lines[i].height, want[i].height);
		assert_int_equal(lines[i].width, want[i].width);
		assert_int_equal(lines[i].bytes_each,
				 (size_t)4 * want[i].channels * want[i].height * want[i].width);
		assert_int_equal(lines[i].bytes, lines[i].convolutions * lines[i].bytes_each);
		bytes += lines[i].bytes;
	}
	assert_int_equal(bytes, total);
}

/* docs/model/vae.md §6.3; the totals there are 940.77 MB and 595.19 MB. */
static void published_contexts(void **state)
{
	static const struct vae_context_line encoder[] = {
		{ .name = "encoder conv_in", 1, 48, 176, 320 },
		{ .name = "encoder block 0 resnets + down", 9, 128, 176, 320 },
		{ .name = "encoder block 1 resnets + down", 13, 256, 88, 160 },
		{ .name = "encoder block 2 resnets + down", 13, 512, 88, 160 },
		{ .name = "encoder block 3 resnets + down", 5, 1024, 44, 80 },
		{ .name = "encoder mid + conv_out", 5, 2048, 22, 40 },
	};
	static const struct vae_context_line decoder[] = {
		{ .name = "decoder conv_in", 1, 128, 22, 40 },
		{ .name = "decoder mid + up0 conv", 11, 1024, 22, 40 },
		{ .name = "decoder up0 resnets + up1 conv", 11, 512, 44, 80 },
		{ .name = "decoder up1 resnets + up2 conv", 11, 256, 88, 160 },
		{ .name = "decoder up2 resnets + conv_out", 11, 128, 176, 320 },
	};
	struct model_config config;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	check_lines(&config.vae, 'e', 704, 1280, encoder, ARRAY_SIZE(encoder), 940769280);
	check_lines(&config.vae, 'd', 704, 1280, decoder, ARRAY_SIZE(decoder), 595189760);
	model_config_finish(&config);
}

/* docs/model/vae.md §9, for 24 frames. */
static void published_cost(void **state)
{
	struct model_config config;
	double encode_flops, decode_flops;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	encode_flops = vae_encode_flops(&config.vae, 704, 1280, 3);
	decode_flops = vae_decode_flops(&config.vae, 704, 1280, 3);
	print_message("encode %.3f TFLOP, decode %.3f TFLOP\n", encode_flops * 1e-12,
		      decode_flops * 1e-12);
	assert_float_equal(encode_flops * 1e-12, 62.97, 0.005);
	assert_float_equal(decode_flops * 1e-12, 27.08, 0.005);
	model_config_finish(&config);
}

static void demo_config(struct vae_config *ret)
{
	_cleanup_(freep) char *text = NULL;
	struct sana_error error = { 0 };
	size_t size;

	if (file_read("models/demo/vae/config.json", 1 << 20, "test", &text, &size, &error) < 0 ||
	    vae_config_parse(text, size, "models/demo/vae/config.json", ret, &error) < 0)
		fail_msg("%s", error.text);
}

static void demo_contexts(void **state)
{
	static const struct vae_context_line encoder[] = {
		{ .name = "encoder conv_in", 1, 48, 64, 64 },
		{ .name = "encoder block 0 down", 1, 64, 64, 64 },
		{ .name = "encoder block 1 resnets + down", 5, 64, 32, 32 },
		{ .name = "encoder conv_out", 1, 128, 16, 16 },
	};
	static const struct vae_context_line decoder[] = {
		{ .name = "decoder conv_in", 1, 64, 16, 16 },
		{ .name = "decoder up0 conv", 1, 128, 16, 16 },
		{ .name = "decoder up0 resnets + up1 conv", 5, 64, 32, 32 },
		{ .name = "decoder up1 resnets + conv_out", 5, 32, 64, 64 },
	};
	struct vae_config config;

	(void)state;
	demo_config(&config);
	check_lines(&config, 'e', 256, 256, encoder, ARRAY_SIZE(encoder), 3276800);
	check_lines(&config, 'd', 256, 256, decoder, ARRAY_SIZE(decoder), 4128768);
}

/* The demo model's strides: (2,2,2) then (1,2,2) going down, (1,2,2) then (2,2,2) going up. */
static void demo_frames(void **state)
{
	struct bench b = { 0 };

	(void)state;
	demo_config(&b.config);
	bench_open(&b, NULL, true, 32, 32);
	assert_int_equal(b.config.temporal_ratio, 2);
	assert_int_equal(encode(&b, 0, 1, b.latents), 1);
	assert_int_equal(encode(&b, 1, 1, b.latents), 0);
	assert_int_equal(encode(&b, 2, 5, b.latents), 3);
	assert_int_equal(encode(&b, 7, 6, b.latents), 3);
	assert_int_equal(decode(&b, &b.decoder, 0, 1, b.out), 1);
	assert_int_equal(decode(&b, &b.decoder, 1, 3, b.out), 6);
	bench_close(&b);
}

/* What the arena gives to contexts is what the table says, line by line. */
static void arena_agrees_with_the_table(void **state)
{
	struct vae_context_line lines[VAE_MAX_CONTEXT_LINES];
	struct vae_encoder encoder = { 0 };
	struct vae_decoder decoder = { 0 }, whole = { 0 };
	struct backend backend = { .table = &kernel_backend_cpu };
	struct model_config config;
	struct arena arena;
	int count;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	assert_int_equal(vae_encoder_init(&encoder, &config.vae, NULL, 704, 1280, 24), 0);
	assert_int_equal(vae_decoder_init(&decoder, &config.vae, NULL, 704, 1280, 3, false), 0);
	arena_measure(&arena);
	vae_encoder_layout_state(&encoder, &backend, &arena);
	count = vae_context_lines(&config.vae, 'e', 704, 1280, KERNEL_F32, lines);
	assert_int_equal(arena.lines, count + 1);
	for (int i = 0; i < count; i++) {
		assert_string_equal(arena.line[i].name + strlen("VAE encoder contexts/"),
				    lines[i].name + strlen("encoder "));
		assert_int_equal(arena.line[i].bytes, lines[i].bytes);
		assert_int_equal(arena.line[i].count, lines[i].convolutions);
	}
	assert_string_equal(arena.line[count].name, "VAE encoder contexts/pending frames");
	assert_int_equal(arena.line[count].count, 3);
	arena_measure(&arena);
	vae_decoder_layout_state(&decoder, &backend, &arena);
	assert_int_equal(arena.used, 2 * (size_t)595189760);

	/* A whole clip carries nothing. */
	arena_measure(&arena);
	assert_int_equal(vae_decoder_init(&whole, &config.vae, NULL, 704, 1280, 3, true), 0);
	vae_decoder_layout_state(&whole, &backend, &arena);
	assert_int_equal(arena.used, 0);
	assert_int_equal(arena.lines, 0);
	/* The largest activation of 24 frames is 128×24×176×320, of F32 here. */
	vae_decoder_layout_scratch(&whole, &backend, &arena);
	assert_int_equal(whole.scratch_bytes, (size_t)4 * 128 * 24 * 176 * 320);
	model_config_finish(&config);
}

static void wrong_sizes_are_refused(void **state)
{
	struct vae_encoder encoder = { 0 };
	struct vae_decoder decoder = { 0 };
	struct model_config config;
	const struct vae_config *c = &config.vae;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 720, 1280, 8), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 704, 1270, 8), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 0, 1280, 8), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, -32, 1280, 8), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 704, 32768, 8), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 704, 1280, 0), -EINVAL);
	assert_int_equal(vae_encoder_init(&encoder, c, NULL, 32, 32, 1), 0);
	/* Reflection needs two rows and two columns of latents. */
	assert_int_equal(vae_decoder_init(&decoder, c, NULL, 32, 64, 1, false), -EINVAL);
	assert_int_equal(vae_decoder_init(&decoder, c, NULL, 64, 64, 1, false), 0);
	assert_int_equal(vae_decoder_init(&decoder, c, NULL, 64, 64, 0, false), -EINVAL);
	assert_int_equal(vae_decoder_init(&decoder, c, NULL, 64, 64, INT32_MAX, false), -EINVAL);
	model_config_finish(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_counted),
		cmocka_unit_test(pieces_give_the_whole),
		cmocka_unit_test(latents_one_by_one_give_the_whole),
		cmocka_unit_test(still_input_gives_equal_latents),
		cmocka_unit_test(reset_forgets_everything),
		cmocka_unit_test(plans_and_refusals_change_nothing),
		cmocka_unit_test(statistics_normalise),
		cmocka_unit_test(down_sampler_without_convolution),
		cmocka_unit_test(spatial_down_sampler_averages_pairs),
		cmocka_unit_test(up_sampler_without_convolution),
		cmocka_unit_test(published_contexts),
		cmocka_unit_test(published_cost),
		cmocka_unit_test(demo_contexts),
		cmocka_unit_test(demo_frames),
		cmocka_unit_test(arena_agrees_with_the_table),
		cmocka_unit_test(wrong_sizes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
