/* A stream's options and its one block of memory. */
#include "engine/stream.h"

#include <errno.h>

static const int default_rebase_latents = 512;
static const float default_health_limit = 1e6f;
static const int default_health_reset_after = 3;
static const char options_error[] = "stream.options";

void sana_stream_options_init(struct sana_stream_options *options)
{
	*options = (struct sana_stream_options){ .prompt_switch = SANA_SWITCH_INVALID };
}

static void defaults_fill(struct sana_stream *stream)
{
	const struct stream_config *config = &stream->model->config.stream;
	struct sana_stream_options *o = &stream->options;

	if (o->width == 0 && o->height == 0) {
		o->width = config->width;
		o->height = config->height;
	}
	if (o->first_chunk_latents == 0)
		o->first_chunk_latents = config->first_chunk_latents[config->first_chunks - 1];
	if (o->decode_latents == 0)
		o->decode_latents = config->chunk_latents;
	if (o->rebase_latents == 0)
		o->rebase_latents = default_rebase_latents;
	if (o->prompt_switch == SANA_SWITCH_INVALID)
		o->prompt_switch = config->on_prompt_switch;
	if (o->health_limit == 0)
		o->health_limit = default_health_limit;
	if (o->health_reset_after == 0)
		o->health_reset_after = default_health_reset_after;
}

static int options_check(const struct sana_stream *stream, struct sana_error *error)
{
	const struct stream_config *config = &stream->model->config.stream;
	const struct sana_stream_options *o = &stream->options;
	const int ratio = config->spatial_ratio, most = MODEL_MAX_PIXELS;
	bool known = false;

	for (int i = 0; i < config->first_chunks; i++)
		known |= config->first_chunk_latents[i] == o->first_chunk_latents;
	if (o->width < ratio || o->height < ratio || o->width > most || o->height > most)
		return sana_error_set(error, -EINVAL, options_error,
				      "The picture must be between %d and %d pixels wide and high.",
				      ratio, most);
	if (o->width % ratio || o->height % ratio)
		return sana_error_set(
			error, -EINVAL, options_error,
			"Width and height must be multiples of %d: scale or crop %dx%d "
			"to %dx%d, say.",
			ratio, o->width, o->height, o->width / ratio * ratio,
			o->height / ratio * ratio);
	if (!known)
		return sana_error_set(
			error, -EINVAL, options_error,
			"A first chunk of %d latents is not one this model knows (%d is).",
			o->first_chunk_latents, config->first_chunk_latents[0]);
	if (o->decode_latents < 1 || o->decode_latents > MODEL_MAX_CHUNK_LATENTS)
		return sana_error_set(error, -EINVAL, options_error,
				      "decode_latents is %d and must be 1 to %d.",
				      o->decode_latents, MODEL_MAX_CHUNK_LATENTS);
	if (o->rebase_latents < 1 || o->health_reset_after < 1 || !(o->health_limit > 0))
		return sana_error_set(
			error, -EINVAL, options_error,
			"rebase_latents (%d), health_reset_after (%d) and health_limit must be "
			"positive.",
			o->rebase_latents, o->health_reset_after);
	if ((unsigned int)o->prompt_switch >= SANA_SWITCH_COUNT)
		return sana_error_set(error, -EINVAL, options_error,
				      "Prompt switch %d is none of keep, recache, restart.",
				      (int)o->prompt_switch);
	if (o->noise && o->noise_latents < 1)
		return sana_error_set(error, -EINVAL, options_error,
				      "The noise given has %d latents.", o->noise_latents);
	return 0;
}

int stream_init(struct sana_stream *stream, struct sana_model *model,
		const struct sana_stream_options *options, struct sana_error *error)
{
	const struct stream_config *config = &model->config.stream;
	struct sana_stream_options *o = &stream->options;
	struct editor_options editor;
	int r;

	stream->model = model;
	stream->options = *options;
	defaults_fill(stream);
	r = options_check(stream, error);
	if (r < 0)
		return r;
	stream->width = o->width;
	stream->height = o->height;
	stream->latent_width = o->width / config->spatial_ratio;
	stream->latent_height = o->height / config->spatial_ratio;
	stream->decode_latents = o->decode_latents;
	stream->output_capacity = o->decode_latents * config->temporal_ratio;
	stream->can_overlap = model->backend.table->fence_create != NULL;
	stream->overlap = stream->can_overlap;
	editor = (struct editor_options){
		.height = stream->latent_height,
		.width = stream->latent_width,
		.first_frames = o->first_chunk_latents,
		.rebase_latents = o->rebase_latents,
		.health_limit = o->health_limit,
	};
	r = vae_encoder_init(&stream->encoder, &model->config.vae, &model->networks.vae, o->height,
			     o->width, config->temporal_ratio);
	if (r >= 0)
		r = vae_decoder_init(&stream->decoder, &model->config.vae, &model->networks.vae,
				     o->height, o->width, o->decode_latents, false);
	if (r >= 0)
		r = editor_init(&stream->editor, &model->config, &model->networks.dit, &editor);
	if (r < 0)
		return sana_error_set(
			error, -EINVAL, options_error,
			"The model cannot run at %dx%d: the picture is too small or too large "
			"for it.",
			o->width, o->height);
	return 0;
}

static int temporal_ratio(const struct sana_stream *stream)
{
	return stream->model->config.stream.temporal_ratio;
}

static size_t patch_count(const struct sana_stream *stream)
{
	return (size_t)stream->height * (size_t)stream->width *
	       (size_t)stream->model->config.vae.pixel_channels;
}

void stream_layout(struct sana_stream *stream, struct arena *arena)
{
	const struct backend *backend = &stream->model->backend;
	const size_t frame = patch_count(stream);
	struct arena_union shared;

	vae_encoder_layout_state(&stream->encoder, backend, arena);
	vae_decoder_layout_state(&stream->decoder, backend, arena);
	editor_layout_state(&stream->editor, backend, arena);
	stream->picture =
		arena_take(arena, "pixels/8-bit frames", frame * (size_t)temporal_ratio(stream), 1);
	stream->output_rgb = arena_take(arena, "pixels/8-bit frames",
					frame * (size_t)stream->output_capacity, 1);

	/* Stages that never run at the same time share a region. */
	arena_union_begin(arena, &shared);
	vae_encoder_layout_scratch(&stream->encoder, backend, arena);
	arena_union_next(arena, &shared);
	vae_decoder_layout_scratch(&stream->decoder, backend, arena);
	if (!stream->can_overlap) {
		arena_union_next(arena, &shared);
		editor_layout_scratch(&stream->editor, backend, arena);
	}
	arena_union_end(arena, &shared);
	if (stream->can_overlap)
		editor_layout_scratch(&stream->editor, backend, arena);
}

static void stages_plan(struct sana_stream *stream, struct op_context op[STREAM_LANES])
{
	const int ratio = temporal_ratio(stream);
	const struct vae_config *vae = &stream->model->config.vae;
	struct op_context *encode = &op[STREAM_LANE_ENCODE];
	int produced;

	OP(encode, patchify,
	   { .pixels = stream->picture,
	     .y = stream->encoder.patches,
	     .frames = ratio,
	     .height = stream->height,
	     .width = stream->width,
	     .channels = vae->pixel_channels,
	     .patch = vae->patch });
	(void)vae_encoder_run(&stream->encoder, encode, stream->encoder.patches, 1,
			      stream->editor.source[0], &produced);
	(void)vae_encoder_run(&stream->encoder, encode, stream->encoder.patches, ratio,
			      stream->editor.source[0], &produced);
	editor_plan(&stream->editor, &op[STREAM_LANE_EDIT]);
	for (int n = 1; n <= stream->decode_latents; n++)
		(void)vae_decoder_run(&stream->decoder, &op[STREAM_LANE_DECODE],
				      stream->editor.latent[0], n, NULL, &produced);
}

/* Encoding and decoding never run at the same time; the DiT may run beside them. */
static void workspaces_take(struct sana_stream *stream, struct arena *arena)
{
	struct kernel_workspace *encode = &stream->lane[STREAM_LANE_ENCODE].op.workspace;
	struct kernel_workspace *edit = &stream->lane[STREAM_LANE_EDIT].op.workspace;
	struct kernel_workspace *decode = &stream->lane[STREAM_LANE_DECODE].op.workspace;
	size_t vae = MAX_OF(encode->bytes, decode->bytes);

	if (!stream->can_overlap)
		vae = MAX_OF(vae, edit->bytes);
	encode->data = decode->data = arena_take(arena, "workspace", vae, 1);
	edit->data = stream->can_overlap ? arena_take(arena, "workspace", edit->bytes, 1) :
					   encode->data;
}

/* Lays out over a measuring arena and plans the workspaces at the end of the block. */
static int measure(struct sana_stream *stream, struct arena *arena, struct sana_error *error)
{
	struct op_context op[STREAM_LANES];

	for (int i = 0; i < STREAM_LANES; i++)
		op[i] = (struct op_context){ .backend = &stream->model->backend, .planning = true };
	arena_measure(arena);
	stream_layout(stream, arena);
	stages_plan(stream, op);
	for (int i = 0; i < STREAM_LANES; i++) {
		if (op[i].status < 0)
			return sana_error_set(
				error, op[i].status, "stream.options",
				"The back end cannot run this model at %dx%d (op %s: %s): "
				"choose another back end.",
				stream->width, stream->height, kernel_op_name(op[i].failed),
				strerror(-op[i].status));
		stream->lane[i].op.workspace.bytes = op[i].workspace.bytes;
	}
	workspaces_take(stream, arena);
	if (arena->overflowed)
		return sana_error_set(error, -EOVERFLOW, "stream.options",
				      "The picture is too large.");
	return 0;
}

int stream_measure(struct sana_model *model, const struct sana_stream_options *options,
		   struct arena *arena, struct sana_error *error)
{
	_cleanup_(freep) struct sana_stream *stream = calloc(1, sizeof(*stream));
	int r;

	if (!stream)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a plan.");
	r = stream_init(stream, model, options, error);
	return r < 0 ? r : measure(stream, arena, error);
}

/* -------------------------------------------------------------------------- opening, closing */

static int host_take(struct sana_stream *stream, size_t bytes, void **ret)
{
	const struct backend *b = &stream->model->backend;

	return b->table->host_allocate(b->device, bytes, ret);
}

/* Frames on their way in and out, where the back end copies faster from memory of its own. */
static int host_frames_allocate(struct sana_stream *stream)
{
	const size_t frame = patch_count(stream);
	void *memory;
	int r;

	if (!stream->model->backend.table->host_allocate)
		return 0;
	r = host_take(stream, STREAM_AHEAD * frame * (size_t)temporal_ratio(stream), &memory);
	if (r < 0)
		return r;
	stream->host_picture = memory;
	r = host_take(stream, sizeof(*stream->host_flags), &memory);
	if (r < 0)
		return r;
	stream->host_flags = memory;
	stream->editor.host_flags = memory;
	for (int i = 0; i < STREAM_AHEAD && r >= 0; i++) {
		r = host_take(stream, frame * (size_t)stream->output_capacity, &memory);
		if (r >= 0)
			stream->output[i].host = memory;
	}
	return r;
}

static void host_frames_release(struct sana_stream *stream)
{
	const struct backend *b = &stream->model->backend;

	if (!b->table->host_release)
		return;
	b->table->host_release(b->device, stream->host_picture);
	b->table->host_release(b->device, stream->host_flags);
	for (int i = 0; i < STREAM_AHEAD; i++)
		b->table->host_release(b->device, stream->output[i].host);
}

static int output_allocate(struct sana_stream *stream, struct stream_output *output)
{
	const size_t frames = (size_t)stream->output_capacity;

	output->info = calloc(frames, sizeof(*output->info));
	output->real = calloc(frames, sizeof(*output->real));
	return output->info && output->real ? 0 : -ENOMEM;
}

static int host_allocate(struct sana_stream *stream)
{
	const struct stream_config *config = &stream->model->config.stream;
	const int most = MAX_OF(stream->options.first_chunk_latents, config->chunk_latents);
	const size_t latents = (size_t)most * (size_t)stream->latent_height *
			       (size_t)stream->latent_width * (size_t)config->latent_channels;
	int r;

	/* At most: one chunk edited, one filled, one latent's frames waiting to be encoded. */
	stream->tag_capacity = (2 * most + 1) * config->temporal_ratio;
	stream->tag = calloc((size_t)stream->tag_capacity, sizeof(*stream->tag));
	if (!stream->tag)
		return -ENOMEM;
	for (int i = 0; i < STREAM_AHEAD; i++)
		if (output_allocate(stream, &stream->output[i]) < 0)
			return -ENOMEM;
	r = host_frames_allocate(stream);
	if (r < 0)
		return r;
	if (!stream->options.noise)
		return 0;
	stream->noise = malloc(latents * sizeof(*stream->noise));
	return stream->noise ? 0 : -ENOMEM;
}

static int block_take(struct sana_stream *stream, struct sana_error *error)
{
	const struct backend *backend = &stream->model->backend;
	struct arena arena;
	char text[24];
	int r;

	r = measure(stream, &arena, error);
	if (r < 0)
		return r;
	r = model_memory_check(stream->model, arena.used, error);
	if (r < 0)
		return r;
	stream->block_bytes = arena.used;
	r = backend->table->allocate(backend->device, stream->block_bytes, &stream->block);
	if (r < 0 && r != -ENOMEM)
		return backend_fail(error, r);
	if (r < 0) {
		model_bytes_text(stream->block_bytes, text, sizeof(text));
		return sana_error_set(
			error, r, "memory",
			"No memory for the stream's %s: the plan fitted a moment ago, "
			"so another program has taken it since.",
			text);
	}
	arena_place(&arena, stream->block, stream->block_bytes);
	stream_layout(stream, &arena);
	workspaces_take(stream, &arena);
	return 0;
}

static int device_prepare(struct sana_stream *stream, struct sana_error *error)
{
	int r;

	r = stream_lanes_open(stream);
	if (r >= 0)
		r = stream_tune(stream);
	if (r >= 0)
		r = editor_prepare(&stream->editor, stream_op(stream, STREAM_LANE_EDIT),
				   stream->options.seed);
	if (r < 0)
		return backend_fail(error, r);
	return 0;
}

int sana_stream_open(struct sana_model *model, const struct sana_stream_options *options,
		     struct sana_stream **ret, struct sana_error *error)
{
	struct sana_stream *stream;
	int r;

	/* Not when a model is measured with a stream beside it: it may be opened for whole clips. */
	if (!model->config.vae.decoder_causal)
		return sana_error_set(
			error, -ENOTSUP, "stream.decoder",
			"This model's VAE decoder is not causal: it decodes whole clips only; "
			"a stream needs the causal VAE (decoder_causal true).");
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a stream.");
	(void)pthread_mutex_init(&stream->lock, NULL);
	r = stream_init(stream, model, options, error);
	stream->model = sana_model_ref(model);
	if (r >= 0)
		r = block_take(stream, error);
	if (r >= 0) {
		r = host_allocate(stream);
		if (r < 0)
			(void)backend_fail(error, r);
	}
	if (r >= 0)
		r = device_prepare(stream, error);
	if (r < 0) {
		(void)sana_stream_close(stream);
		return r;
	}
	stream->latent = stream->options.first_latent;
	stream->statistics.model_bytes = model->block_bytes;
	stream->statistics.mapped_bytes = model->mapped_bytes;
	stream->statistics.stream_bytes = stream->block_bytes;
	vae_encoder_reset(&stream->encoder);
	vae_decoder_reset(&stream->decoder);
	*ret = stream;
	return 0;
}

struct sana_stream *sana_stream_close(struct sana_stream *stream)
{
	const struct backend *backend;

	if (!stream)
		return NULL;
	backend = &stream->model->backend;
	stream_lanes_wait(stream);
	editor_finish(&stream->editor, backend);
	stream_lanes_close(stream);
	if (stream->block)
		backend->table->release(backend->device, stream->block, stream->block_bytes);
	(void)sana_prompt_unref(stream->requests.prompt);
	(void)sana_prompt_unref(stream->fill.prompt);
	(void)sana_prompt_unref(stream->caption);
	host_frames_release(stream);
	free(stream->profile);
	free(stream->tag);
	for (int i = 0; i < STREAM_AHEAD; i++) {
		free(stream->output[i].info);
		free(stream->output[i].real);
	}
	free(stream->noise);
	free(stream->sink_latents);
	free(stream->sink_source);
	(void)sana_model_unref(stream->model);
	(void)pthread_mutex_destroy(&stream->lock);
	free(stream);
	return NULL;
}
