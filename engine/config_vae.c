/* vae/config.json: block lists of the video autoencoder, turned into order of execution. */
#include "engine/config_reader.h"

enum { PIXEL_CHANNELS = 3, MAX_PATCH = 64, MAX_FACTOR = 64 };

static const struct {
	const char *name;
	int stride_t, stride_s;
} resample_kinds[] = {
	[VAE_SPATIAL] = { "spatial", 1, 2 },
	[VAE_TEMPORAL] = { "temporal", 2, 1 },
	[VAE_SPATIOTEMPORAL] = { "spatiotemporal", 2, 2 },
};

static void block_set_stride(struct vae_block *block, enum vae_resample_kind kind)
{
	block->stride_t = resample_kinds[kind].stride_t;
	block->stride_h = block->stride_w = resample_kinds[kind].stride_s;
}

static int block_phases(const struct vae_block *block)
{
	return block->stride_t * block->stride_h * block->stride_w;
}

/* A list of one resampler name per block. */
static void read_kinds(struct json_reader *reader, const char *key, int count,
		       enum vae_resample_kind *to)
{
	const json_t *list = json_get_list(reader, key, count, count), *value;
	size_t i, kind;

	json_array_foreach((json_t *)list, i, value)
	{
		const char *name = json_is_string(value) ? json_string_value(value) : "";

		for (kind = 0; kind < ARRAY_SIZE(resample_kinds); kind++)
			if (strcmp(resample_kinds[kind].name, name) == 0)
				break;
		if (kind == ARRAY_SIZE(resample_kinds)) {
			(void)json_fail(reader, key,
					"entry %zu must be \"spatial\", \"temporal\" or "
					"\"spatiotemporal\".",
					i);
			return;
		}
		to[i] = (enum vae_resample_kind)kind;
	}
}

static void check_down_block(struct json_reader *reader, const struct vae_block *block, int index)
{
	int phases = block_phases(block);

	if (block->cout % phases)
		(void)json_fail(reader, "block_out_channels",
				"entry %d is %d, which the %d positions of its down-sampler do "
				"not divide.",
				index, block->cout, phases);
	if ((int64_t)block->cin * phases % block->cout)
		(void)json_fail(reader, "block_out_channels",
				"entry %d is %d, which does not divide %d·%d: the averaging group "
				"must be whole.",
				index, block->cout, block->cin, phases);
}

static void read_encoder(struct json_reader *reader, struct vae_config *config)
{
	int width[MODEL_MAX_VAE_BLOCKS], layers[MODEL_MAX_VAE_BLOCKS + 1];
	enum vae_resample_kind kind[MODEL_MAX_VAE_BLOCKS];
	int count = json_get_integers(reader, "block_out_channels", 1, MODEL_MAX_CHANNELS, 1,
				      MODEL_MAX_VAE_BLOCKS, width);
	int cin = config->latent_channels;

	(void)json_get_integers(reader, "layers_per_block", 0, MODEL_MAX_VAE_LAYERS, count + 1,
				count + 1, layers);
	read_kinds(reader, "downsample_type", count, kind);
	json_expect_bools(reader, "spatio_temporal_scaling", count, count, true);
	if (reader->status < 0)
		return;
	for (int b = 0; b < count; b++) {
		struct vae_block *block = &config->encoder[b];

		*block = (struct vae_block){ .cin = cin, .cout = width[b], .resnets = layers[b] };
		block_set_stride(block, kind[b]);
		check_down_block(reader, block, b);
		cin = block->cout;
	}
	config->encoder_blocks = count;
	config->encoder_first = config->latent_channels;
	config->encoder_mid = cin;
	config->encoder_mid_resnets = layers[count];
}

/*
 * Kinds of the up-samplers, in order of execution, unlike all other lists of the decoder. The
 * second key is another spelling that published files may carry; it must say the same.
 */
static void read_up_kinds(struct json_reader *reader, int count, enum vae_resample_kind *kind)
{
	enum vae_resample_kind again[MODEL_MAX_VAE_BLOCKS];

	for (int b = 0; b < count; b++)
		kind[b] = VAE_SPATIOTEMPORAL;
	if (json_has(reader, "upsample_type"))
		read_kinds(reader, "upsample_type", count, kind);
	if (!json_has(reader, "decoder_upsample_type"))
		return;
	read_kinds(reader, "decoder_upsample_type", count, again);
	if (reader->status == 0 && memcmp(kind, again, sizeof(kind[0]) * (size_t)count) != 0)
		(void)json_fail(reader, "decoder_upsample_type",
				"differs from \"upsample_type\" (absent: all \"spatiotemporal\").");
}

static void check_up_block(struct json_reader *reader, const struct vae_block *block, int factor)
{
	int phases = block_phases(block);

	if (block->cin % factor)
		(void)json_fail(reader, "decoder_block_out_channels",
				"has %d, which the up-sampling factor %d does not divide.",
				block->cin, factor);
	if (block->cin % phases)
		(void)json_fail(reader, "decoder_block_out_channels",
				"has %d, which the %d positions of its up-sampler do not divide.",
				block->cin, phases);
	if (phases % factor)
		(void)json_fail(reader, "upsample_factor",
				"has %d, which does not divide the %d positions of its "
				"up-sampler.",
				factor, phases);
}

struct decoder_lists { /* as stored: the last entry runs first */
	int count;
	int width[MODEL_MAX_VAE_BLOCKS], layers[MODEL_MAX_VAE_BLOCKS + 1];
	int factor[MODEL_MAX_VAE_BLOCKS];
	enum vae_resample_kind kind[MODEL_MAX_VAE_BLOCKS]; /* the first entry runs first */
};

static void read_decoder_lists(struct json_reader *reader, struct decoder_lists *lists)
{
	int count = json_get_integers(reader, "decoder_block_out_channels", 1, MODEL_MAX_CHANNELS,
				      1, MODEL_MAX_VAE_BLOCKS, lists->width);

	lists->count = count;
	(void)json_get_integers(reader, "decoder_layers_per_block", 0, MODEL_MAX_VAE_LAYERS,
				count + 1, count + 1, lists->layers);
	(void)json_get_integers(reader, "upsample_factor", 1, MAX_FACTOR, count, count,
				lists->factor);
	json_expect_bools(reader, "upsample_residual", count, count, true);
	json_expect_bools(reader, "decoder_spatio_temporal_scaling", count, count, true);
	read_up_kinds(reader, count, lists->kind);
}

static void read_decoder(struct json_reader *reader, struct vae_config *config)
{
	struct decoder_lists lists;
	int cin;

	read_decoder_lists(reader, &lists);
	if (reader->status < 0)
		return;
	cin = config->decoder_mid = lists.width[lists.count - 1];
	config->decoder_mid_resnets = lists.layers[lists.count];
	for (int b = 0; b < lists.count; b++) {
		struct vae_block *block = &config->decoder[b];
		int stored = lists.count - 1 - b, factor = lists.factor[stored];

		if (lists.width[stored] != cin)
			(void)json_fail(reader, "decoder_block_out_channels",
					"has %d at entry %d, but the up-sampler before it leaves "
					"%d channels.",
					lists.width[stored], stored, cin);
		*block = (struct vae_block){ .cin = cin,
					     .cout = cin / factor,
					     .resnets = lists.layers[stored] };
		block_set_stride(block, lists.kind[b]);
		check_up_block(reader, block, factor);
		cin = block->cout;
	}
	config->decoder_blocks = lists.count;
	config->decoder_last = cin;
}

static void block_ratios(const struct vae_block *block, int count, int patch, int *ret_spatial,
			 int *ret_temporal)
{
	int spatial = patch, temporal = 1;

	for (int b = 0; b < count; b++) {
		spatial *= block[b].stride_h;
		temporal *= block[b].stride_t;
	}
	*ret_spatial = spatial;
	*ret_temporal = temporal;
}

static void check_ratios(struct json_reader *reader, struct vae_config *config)
{
	int spatial, temporal;

	block_ratios(config->encoder, config->encoder_blocks, config->patch, &config->spatial_ratio,
		     &config->temporal_ratio);
	block_ratios(config->decoder, config->decoder_blocks, config->patch, &spatial, &temporal);
	if (spatial != config->spatial_ratio || temporal != config->temporal_ratio)
		(void)json_fail(reader, "downsample_type",
				"compresses by %d in space and %d in time, but the decoder expands "
				"by %d and %d.",
				config->spatial_ratio, config->temporal_ratio, spatial, temporal);
	(void)json_get_integer_or(reader, "spatial_compression_ratio", spatial, spatial, spatial);
	(void)json_get_integer_or(reader, "temporal_compression_ratio", temporal, temporal,
				  temporal);
}

static bool read_reflect(struct json_reader *reader, const char *key)
{
	const char *mode = json_get_string(reader, key, CONFIG_MAX_TEXT_BYTES);
	bool reflect = mode && strcmp(mode, "reflect") == 0;

	if (mode && !reflect && strcmp(mode, "zeros") != 0)
		(void)json_fail(reader, key, "must be \"zeros\" or \"reflect\".");
	return reflect;
}

/* What the published class can have otherwise, and this engine does not. */
static void check_fixed(struct json_reader *reader)
{
	(void)json_get_integer_or(reader, "in_channels", PIXEL_CHANNELS, PIXEL_CHANNELS, 0);
	(void)json_get_integer_or(reader, "out_channels", PIXEL_CHANNELS, PIXEL_CHANNELS, 0);
	(void)json_get_integer(reader, "patch_size_t", 1, 1);
	if (!json_get_bool(reader, "encoder_causal"))
		(void)json_fail(reader, "encoder_causal",
				"must be true: a stream cannot look ahead.");
	if (json_get_bool_or(reader, "timestep_conditioning", false))
		(void)json_fail(reader, "timestep_conditioning",
				"must be false: the decoder takes no time step here.");
	if (json_has(reader, "decoder_inject_noise"))
		json_expect_bools(reader, "decoder_inject_noise", 0, MODEL_MAX_VAE_BLOCKS + 1,
				  false);
}

int vae_config_parse(const char *text, size_t length, const char *where, struct vae_config *ret,
		     struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct vae_config config = { .pixel_channels = PIXEL_CHANNELS };
	struct json_reader reader;
	int r;

	r = config_open(text, length, where, error, &object, &reader);
	if (r < 0)
		return r;
	config.latent_channels =
		(int)json_get_integer(&reader, "latent_channels", 1, MODEL_MAX_CHANNELS);
	config.patch = (int)json_get_integer(&reader, "patch_size", 1, MAX_PATCH);
	config.scaling_factor = (float)json_get_number(&reader, "scaling_factor", 1e-6, 1e6);
	config.encoder_reflect = read_reflect(&reader, "encoder_spatial_padding_mode");
	config.decoder_reflect = read_reflect(&reader, "decoder_spatial_padding_mode");
	config.decoder_causal = json_get_bool(&reader, "decoder_causal");
	check_fixed(&reader);
	read_encoder(&reader, &config);
	read_decoder(&reader, &config);
	if (reader.status == 0)
		check_ratios(&reader, &config);
	if (reader.status < 0)
		return reader.status;
	*ret = config;
	return 0;
}
