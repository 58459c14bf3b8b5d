/* The VAE goldens: encoder and decoder, whole clip and in pieces, and the bidirectional decoder. */
#include "engine/vae.h"

#include <errno.h>

#include "tests/golden/golden.h"

/* More latents or frames than any golden needs: bounds what a manifest can ask for. */
enum { GOLDEN_FRAMES_MAX = 4096, CHUNKINGS_MAX = 8, NOTE_BYTES = 64 };

/* One way to feed `total` frames: pieces[0] + pieces[1] + … = total. */
struct chunking {
	int count;
	int *pieces;
	char note[NOTE_BYTES];
};

struct vae_golden {
	struct golden *g;
	struct vae_config config;
	struct vae_weights weights;

	/* Either half may be without an input; then its frames are 0. */
	int frames, height, width;	    /* of the video, pixels */
	int latents, out_height, out_width; /* of the latent; what it decodes to, pixels */
	int out_frames;
	struct vae_encoder encoder;
	struct vae_decoder decoder, whole;
	void *pixels, *patches; /* F32 video, act patches of the encoder's input */
	float *mean;		/* F32 latents of one encoder run */
	float *latent;		/* F32, the decoder's input */
	void *out_patches, *out_pixels;
	struct chunking chunking[CHUNKINGS_MAX];
	int chunkings;
};

/* ---------------------------------------------------------------------------------- the config */

/* Frames or pixels per latent; unknown words are left to vae_config_parse. */
static void ratios_count(const json_t *types, int patch, int *ret_spatial, int *ret_temporal)
{
	const json_t *entry;
	size_t i;

	*ret_spatial = patch;
	*ret_temporal = 1;
	json_array_foreach((json_t *)types, i, entry)
	{
		const char *type = json_string_value(entry);

		if (!type || i >= MODEL_MAX_VAE_BLOCKS)
			return;
		*ret_temporal *= strcmp(type, "spatial") == 0 ? 1 : 2;
		*ret_spatial *= strcmp(type, "temporal") == 0 ? 1 : 2;
	}
}

static json_t *trues(size_t count)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(list, json_true());
	return list;
}

/* The published form of a manifest's shortened config; NULL without memory. */
static json_t *config_expand(const struct golden *g, int patch, int latent_channels)
{
	static const char *const names[][2] = {
		{ "block_out_channels", "encoder_channels" },
		{ "decoder_block_out_channels", "decoder_channels" },
		{ "layers_per_block", "encoder_layers" },
		{ "decoder_layers_per_block", "decoder_layers" },
		{ "downsample_type", "downsample" },
		{ "upsample_factor", "upsample_factor" },
		{ "upsample_residual", "upsample_residual" },
	};
	int spatial, temporal;
	json_t *full;

	ratios_count(json_object_get(g->config, "downsample"), patch, &spatial, &temporal);
	full = json_pack("{si si si si si sf sb sb si si ss ss sb}", "in_channels", 3,
			 "out_channels", 3, "latent_channels", latent_channels, "patch_size", patch,
			 "patch_size_t", 1, "scaling_factor", 1.0, "encoder_causal", 1,
			 "decoder_causal", 1, "spatial_compression_ratio", spatial,
			 "temporal_compression_ratio", temporal, "encoder_spatial_padding_mode",
			 "zeros", "decoder_spatial_padding_mode", "reflect",
			 "timestep_conditioning", 0);
	for (size_t i = 0; full && i < ARRAY_SIZE(names); i++) {
		json_t *value = json_object_get(g->config, names[i][1]);

		if (value)
			(void)json_object_set(full, names[i][0], value);
	}
	if (full)
		(void)json_object_set_new(
			full, "spatio_temporal_scaling",
			trues(json_array_size(json_object_get(full, "block_out_channels"))));
	if (full)
		(void)json_object_set_new(full, "decoder_spatio_temporal_scaling",
					  trues(json_array_size(json_object_get(
						  full, "decoder_block_out_channels"))));
	return full;
}

static int config_read(struct vae_golden *v)
{
	struct json_reader reader = golden_config(v->g);
	_cleanup_(json_decrefp) json_t *full = NULL;
	_cleanup_(freep) char *text = NULL;
	int patch, latent_channels;

	patch = (int)json_get_integer(&reader, "patch", 1, 64);
	latent_channels = (int)json_get_integer(&reader, "latent_channels", 1, MODEL_MAX_CHANNELS);
	(void)json_get_list(&reader, "encoder_channels", 1, MODEL_MAX_VAE_BLOCKS);
	(void)json_get_list(&reader, "decoder_channels", 1, MODEL_MAX_VAE_BLOCKS);
	(void)json_get_list(&reader, "encoder_layers", 2, MODEL_MAX_VAE_BLOCKS + 1);
	(void)json_get_list(&reader, "decoder_layers", 2, MODEL_MAX_VAE_BLOCKS + 1);
	(void)json_get_list(&reader, "downsample", 1, MODEL_MAX_VAE_BLOCKS);
	if (reader.status < 0)
		return reader.status;
	full = config_expand(v->g, patch, latent_channels);
	text = full ? json_dumps(full, 0) : NULL;
	if (!text)
		return golden_fail(v->g, "no memory for the config.");
	return vae_config_parse(text, strlen(text), v->g->path, &v->config, v->g->error);
}

/* [1][channels][frames][height][width] of an input. */
static int input_size(struct vae_golden *v, const char *name, int channels, int *ret_frames,
		      int *ret_height, int *ret_width)
{
	int64_t shape[GOLDEN_RANK];
	int rank, r;

	r = golden_input_shape(v->g, name, &rank, shape);
	if (r < 0)
		return r;
	if (rank != 5 || shape[0] != 1 || shape[1] != channels)
		return golden_fail(v->g, "\"inputs.%s\" must have a shape [1, %d, T, H, W].", name,
				   channels);
	if (shape[2] > GOLDEN_FRAMES_MAX || shape[3] > MODEL_MAX_PIXELS ||
	    shape[4] > MODEL_MAX_PIXELS)
		return golden_fail(v->g, "\"inputs.%s\" is too large.", name);
	*ret_frames = (int)shape[2];
	*ret_height = (int)shape[3];
	*ret_width = (int)shape[4];
	return 0;
}

static int sizes_read(struct vae_golden *v)
{
	const struct vae_config *c = &v->config;
	int r;

	if (golden_has_input(v->g, "video")) {
		r = input_size(v, "video", c->pixel_channels, &v->frames, &v->height, &v->width);
		if (r < 0)
			return r;
	}
	if (!golden_has_input(v->g, "latent"))
		return 0;
	r = input_size(v, "latent", c->latent_channels, &v->latents, &v->out_height, &v->out_width);
	if (r < 0)
		return r;
	v->out_height *= c->spatial_ratio;
	v->out_width *= c->spatial_ratio;
	v->out_frames = (v->latents - 1) * c->temporal_ratio + 1;
	return 0;
}

/* -------------------------------------------------------------------------------------- memory */

static size_t pixel_count(const struct vae_golden *v, int frames, int height, int width)
{
	return (size_t)frames * (size_t)height * (size_t)width * (size_t)v->config.pixel_channels;
}

static size_t latent_plane(const struct vae_golden *v, int height, int width)
{
	return (size_t)(height / v->config.spatial_ratio) * (width / v->config.spatial_ratio) *
	       v->config.latent_channels;
}

static void patchify(struct vae_golden *v, struct op_context *op)
{
	const size_t row = (size_t)v->width * v->config.pixel_channels * sizeof(float);

	OP(op, patchify,
	   { .pixels = v->pixels,
	     .pixels_are_float = true,
	     .row_bytes = row,
	     .frame_bytes = row * v->height,
	     .y = v->patches,
	     .frames = v->frames,
	     .height = v->height,
	     .width = v->width,
	     .channels = v->config.pixel_channels,
	     .patch = v->config.patch });
}

static void unpatchify(struct vae_golden *v, struct op_context *op, int frames)
{
	const size_t row = (size_t)v->out_width * v->config.pixel_channels * sizeof(float);

	OP(op, unpatchify,
	   { .x = v->out_patches,
	     .pixels = v->out_pixels,
	     .pixels_are_float = true,
	     .row_bytes = row,
	     .frame_bytes = row * v->out_height,
	     .frames = frames,
	     .height = v->out_height,
	     .width = v->out_width,
	     .channels = v->config.pixel_channels,
	     .patch = v->config.patch });
}

static int encoder_layout(struct vae_golden *v, struct arena *arena, struct op_context *planning)
{
	const struct backend *backend = &v->g->backend;
	const size_t pixels = pixel_count(v, v->frames, v->height, v->width);
	int r, made;

	r = vae_encoder_init(&v->encoder, &v->config, &v->weights, v->height, v->width, v->frames);
	if (r < 0)
		return golden_fail(v->g,
				   "\"inputs.video\": %d×%d pixels do not fit the compression.",
				   v->width, v->height);
	vae_encoder_layout_state(&v->encoder, backend, arena);
	vae_encoder_layout_scratch(&v->encoder, backend, arena);
	v->pixels = arena_take(arena, "pixels", pixels, sizeof(float));
	v->patches = arena_take(arena, "pixels", pixels, activation_bytes(backend));
	v->mean = arena_take(arena, "latents", (size_t)v->frames / v->config.temporal_ratio + 1,
			     latent_plane(v, v->height, v->width) * sizeof(float));
	if (!planning)
		return 0;
	patchify(v, planning);
	for (int n = 1; n <= v->frames && r >= 0; n++)
		r = vae_encoder_run(&v->encoder, planning, v->patches, n, v->mean, &made);
	return r;
}

static int decoder_layout(struct vae_golden *v, struct arena *arena, struct op_context *planning)
{
	const struct backend *backend = &v->g->backend;
	/* A run in mid-stream makes temporal_ratio frames of every latent. */
	const size_t pixels =
		pixel_count(v, v->latents * v->config.temporal_ratio, v->out_height, v->out_width);
	int r, made;

	r = vae_decoder_init(&v->decoder, &v->config, &v->weights, v->out_height, v->out_width,
			     v->latents, false);
	if (r >= 0)
		r = vae_decoder_init(&v->whole, &v->config, &v->weights, v->out_height,
				     v->out_width, v->latents, true);
	if (r < 0)
		return golden_fail(v->g,
				   "\"inputs.latent\" is too large, or smaller than 2×2 latents.");
	vae_decoder_layout_state(&v->decoder, backend, arena);
	vae_decoder_layout_state(&v->whole, backend, arena);
	vae_decoder_layout_scratch(&v->decoder, backend, arena);
	memcpy(v->whole.scratch, v->decoder.scratch, sizeof(v->whole.scratch));
	v->latent = arena_take(arena, "latents", (size_t)v->latents,
			       latent_plane(v, v->out_height, v->out_width) * sizeof(float));
	v->out_patches = arena_take(arena, "pixels", pixels, activation_bytes(backend));
	v->out_pixels = arena_take(arena, "pixels", pixels, sizeof(float));
	if (!planning)
		return 0;
	for (int n = 1; n <= v->latents && r >= 0; n++)
		r = vae_decoder_run(&v->decoder, planning, v->latent, n, v->out_patches, &made);
	if (r >= 0)
		r = vae_decoder_run(&v->whole, planning, v->latent, v->latents, v->out_patches,
				    &made);
	unpatchify(v, planning, v->out_frames);
	return r;
}

static int layout(struct golden *g, void *context, struct loader *loader,
		  struct op_context *planning)
{
	struct vae_golden *v = context;
	int r = 0;

	(void)g;
	vae_weights_load(loader, &v->config, false, &v->weights);
	if (v->frames)
		r = encoder_layout(v, loader->arena, planning);
	if (r >= 0 && v->latents)
		r = decoder_layout(v, loader->arena, planning);
	return r;
}

/* ----------------------------------------------------------------------------------- chunkings */

/* "chunks 1+8+8"; what does not fit ends in "+...". */
static void note_write(struct chunking *chunking)
{
	size_t used = (size_t)snprintf(chunking->note, NOTE_BYTES, "chunks ");
	char piece[16];

	for (int i = 0; i < chunking->count; i++) {
		(void)snprintf(piece, sizeof(piece), "%s%d", i ? "+" : "", chunking->pieces[i]);
		if (used + strlen(piece) + sizeof("+...") > 40 && i + 1 < chunking->count) {
			(void)snprintf(chunking->note + used, NOTE_BYTES - used, "+...");
			return;
		}
		used += (size_t)snprintf(chunking->note + used, NOTE_BYTES - used, "%s", piece);
	}
}

static void chunkings_clear(struct vae_golden *v)
{
	while (v->chunkings > 0)
		free(v->chunking[--v->chunkings].pieces);
}

/*
 * Pieces pattern[0], pattern[1], … until the total is reached, the pattern's last `cycle` entries
 * again and again. A chunking that is there already is left out: short clips have few.
 */
static int chunking_add(struct vae_golden *v, int total, const int *pattern, int length, int cycle)
{
	struct chunking chunking = { .pieces = malloc((size_t)total * sizeof(int)) };
	int left = total, next = 0;

	if (!chunking.pieces)
		return golden_fail(v->g, "no memory for a list of pieces.");
	while (left > 0) {
		const int piece = MIN_OF(pattern[next], left);

		chunking.pieces[chunking.count++] = piece;
		left -= piece;
		next = next + 1 < length ? next + 1 : length - cycle;
	}
	for (int i = 0; i < v->chunkings; i++) {
		const struct chunking *other = &v->chunking[i];

		if (other->count == chunking.count &&
		    memcmp(other->pieces, chunking.pieces, (size_t)chunking.count * sizeof(int)) ==
			    0) {
			free(chunking.pieces);
			return 0;
		}
	}
	note_write(&chunking);
	v->chunking[v->chunkings++] = chunking;
	return 0;
}

/* Whole first; latents as a stream gets them; the rest at once; singles; two odd ones; 1+2r+…. */
static int encoder_chunkings(struct vae_golden *v)
{
	const int total = v->frames, ratio = v->config.temporal_ratio;
	const int patterns[][3] = {
		{ total, total, total },
		{ 1, ratio, ratio },
		{ 1, total, total },
		{ 1, 1, 1 },
		{ 3, 5, 9 },
		{ 2, 7, 1 },
		{ ratio + 1, ratio, ratio },
	};
	int r = 0;

	chunkings_clear(v);
	for (size_t i = 0; i < ARRAY_SIZE(patterns) && r >= 0; i++)
		r = chunking_add(v, total, patterns[i], 3, i == 4 || i == 5 ? 3 : 1);
	return r;
}

static int decoder_chunkings(struct vae_golden *v)
{
	const int total = v->latents;
	const int patterns[][2] = {
		{ total, total }, { 1, 1 }, { 1, 2 }, { 2, 1 }, { MAX_OF(total - 1, 1), 1 },
		{ 1, total },
	};
	struct json_reader reader = golden_config(v->g);
	int given[64], count = 0, sum = 0, r = 0;

	chunkings_clear(v);
	for (size_t i = 0; i < ARRAY_SIZE(patterns) && r >= 0; i++)
		r = chunking_add(v, total, patterns[i], 2, 1);
	if (r < 0 || !json_has(&reader, "decode_chunks"))
		return r;
	count = json_get_integers(&reader, "decode_chunks", 1, GOLDEN_FRAMES_MAX, 1,
				  ARRAY_SIZE(given), given);
	if (reader.status < 0)
		return reader.status;
	for (int i = 0; i < count; i++)
		sum += given[i];
	if (sum != total)
		return golden_fail(v->g,
				   "\"config.decode_chunks\" adds up to %d latents, the input "
				   "has %d.",
				   sum, total);
	return chunking_add(v, total, given, count, 1);
}

/* ---------------------------------------------------------------------------------------- runs */

/* Taps: outputs of modules on the host, compared at once. */
static void tap_output(void *context, const char *module, const void *data, int frames, int height,
		       int width, int channels)
{
	struct vae_golden *v = context;
	const size_t positions = (size_t)frames * (size_t)height * (size_t)width;
	_cleanup_(freep) float *values = NULL;
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "act.%s", module);
	if (!golden_find(v->g, name))
		return;
	values = malloc(positions * (size_t)channels * sizeof(*values));
	/* Without values the tensor counts as not produced. */
	if (!values || golden_read_act(v->g, data, positions * (size_t)channels, values) < 0)
		return;
	golden_compare_channels_last(v->g, name, NULL, values, (size_t)channels, positions);
}

static int run_failed(struct vae_golden *v, int r)
{
	return sana_error_set(v->g->error, r, "golden.run", "%.200s: the VAE stopped: %s.",
			      v->g->path, strerror(-r));
}

static int encode(struct vae_golden *v, const struct chunking *chunking, const struct vae_tap *tap)
{
	const size_t plane = latent_plane(v, v->height, v->width);
	const size_t patch_bytes =
		pixel_count(v, 1, v->height, v->width) * activation_bytes(&v->g->backend);
	const int most = (v->frames - 1) / v->config.temporal_ratio + 1;
	_cleanup_(freep) float *means = calloc((size_t)most + 1, plane * sizeof(*means));
	int done = 0, latents = 0, made, r;

	if (!means)
		return run_failed(v, -ENOMEM);
	vae_encoder_reset(&v->encoder);
	v->encoder.tap = tap;
	for (int i = 0; i < chunking->count; i++) {
		r = vae_encoder_run(&v->encoder, &v->g->op,
				    (const char *)v->patches + (size_t)done * patch_bytes,
				    chunking->pieces[i], v->mean, &made);
		if (r < 0)
			return run_failed(v, r);
		done += chunking->pieces[i];
		if (latents + made > most)
			return golden_fail(v->g, "the encoder made more latents than there are.");
		if (made) {
			r = golden_read_float(v->g, v->mean, (size_t)made * plane,
					      means + (size_t)latents * plane);
			if (r < 0)
				return r;
		}
		latents += made;
	}
	golden_compare_channels_last(v->g, "latent_mean", chunking->note, means,
				     (size_t)v->config.latent_channels,
				     (size_t)latents * plane / v->config.latent_channels);
	return 0;
}

/* Decodes with the causal decoder or the whole-clip one and compares with `name`. */
static int decode(struct vae_golden *v, struct vae_decoder *decoder,
		  const struct chunking *chunking, const struct vae_tap *tap, const char *name)
{
	const size_t plane = latent_plane(v, v->out_height, v->out_width);
	const size_t frame = pixel_count(v, 1, v->out_height, v->out_width);
	_cleanup_(freep) float *video = calloc((size_t)v->out_frames, frame * sizeof(*video));
	int done = 0, frames = 0, made, r;

	if (!video)
		return run_failed(v, -ENOMEM);
	vae_decoder_reset(decoder);
	decoder->tap = tap;
	for (int i = 0; i < chunking->count; i++) {
		r = vae_decoder_run(decoder, &v->g->op, v->latent + (size_t)done * plane,
				    chunking->pieces[i], v->out_patches, &made);
		if (r < 0)
			return run_failed(v, r);
		done += chunking->pieces[i];
		if (frames + made > v->out_frames)
			return golden_fail(v->g, "the decoder made more frames than there are.");
		unpatchify(v, &v->g->op, made);
		r = golden_read_float(v->g, v->out_pixels, (size_t)made * frame,
				      video + (size_t)frames * frame);
		if (r < 0)
			return r;
		frames += made;
	}
	golden_compare_channels_last(v->g, name, decoder->whole_clip ? NULL : chunking->note, video,
				     (size_t)v->config.pixel_channels,
				     (size_t)frames * frame / v->config.pixel_channels);
	return 0;
}

static int encoder_run(struct vae_golden *v, const struct vae_tap *tap)
{
	const size_t positions = (size_t)v->frames * (size_t)v->height * (size_t)v->width;
	_cleanup_(freep) float *video = NULL;
	int r;

	r = golden_input_channels_last(v->g, "video", (size_t)v->config.pixel_channels, positions,
				       &video);
	if (r < 0)
		return r;
	op_upload(&v->g->op, v->pixels, video,
		  pixel_count(v, v->frames, v->height, v->width) * sizeof(*video));
	patchify(v, &v->g->op);
	r = op_wait(&v->g->op);
	if (r < 0)
		return run_failed(v, r);
	r = encoder_chunkings(v);
	for (int i = 0; i < v->chunkings && r >= 0; i++)
		r = encode(v, &v->chunking[i], i == 0 ? tap : NULL);
	return r;
}

static int decoder_run(struct vae_golden *v, const struct vae_tap *tap)
{
	const size_t plane = latent_plane(v, v->out_height, v->out_width);
	const size_t count = plane * (size_t)v->latents;
	_cleanup_(freep) float *latent = NULL;
	int r;

	r = golden_input_channels_last(v->g, "latent", (size_t)v->config.latent_channels,
				       count / (size_t)v->config.latent_channels, &latent);
	if (r < 0)
		return r;
	op_upload(&v->g->op, v->latent, latent, count * sizeof(*latent));
	r = op_wait(&v->g->op);
	if (r < 0)
		return run_failed(v, r);
	r = decoder_chunkings(v);
	for (int i = 0; i < v->chunkings && r >= 0; i++)
		r = decode(v, &v->decoder, &v->chunking[i], i == 0 ? tap : NULL, "decode_causal");
	if (r >= 0 && golden_find(v->g, "decode_bidirectional"))
		r = decode(v, &v->whole, &v->chunking[0], NULL, "decode_bidirectional");
	return r;
}

static int keys_walk(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, false, visit, context);
}

static int golden_vae_run(struct vae_golden *v)
{
	const struct vae_tap tap = { tap_output, v };
	int r;

	r = config_read(v);
	if (r < 0)
		return r;
	r = weights_check(v->g->weights, v->g->path, keys_walk, &v->config, v->g->error);
	if (r < 0)
		return r;
	r = sizes_read(v);
	if (r < 0)
		return r;
	r = golden_place(v->g, layout, v);
	if (r >= 0 && v->frames)
		r = encoder_run(v, &tap);
	if (r >= 0 && v->latents)
		r = decoder_run(v, &tap);
	return r;
}

int golden_vae(struct golden *g)
{
	_cleanup_(freep) struct vae_golden *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return golden_fail(g, "no memory for the VAE.");
	v->g = g;
	r = golden_vae_run(v);
	chunkings_clear(v);
	return r;
}
