/* Whole clips: the bidirectional decoder, for files and tests. */
#include "engine/model.h"

#include <errno.h>

struct clip {
	const struct sana_model *model;
	struct vae_decoder decoder;
	int count, width, height;
	float *latents; /* device */
	void *patches;
	uint8_t *rgb;
	size_t latent_count, pixels;
};

static void clip_layout(struct clip *clip, struct arena *arena)
{
	const struct backend *backend = &clip->model->backend;

	clip->latents = arena_take(arena, "clip/latents", clip->latent_count, sizeof(float));
	clip->patches = arena_take(arena, "clip/patches", clip->pixels, activation_bytes(backend));
	clip->rgb = arena_take(arena, "clip/8-bit frames", clip->pixels, 1);
	vae_decoder_layout_state(&clip->decoder, backend, arena);
	vae_decoder_layout_scratch(&clip->decoder, backend, arena);
}

static void clip_run(struct clip *clip, struct op_context *op)
{
	const struct vae_config *vae = &clip->model->config.vae;
	const size_t row = (size_t)clip->width * (size_t)vae->pixel_channels;
	int frames = 0;

	(void)vae_decoder_run(&clip->decoder, op, clip->latents, clip->count, clip->patches,
			      &frames);
	OP(op, unpatchify,
	   {
		   .x = clip->patches,
		   .pixels = clip->rgb,
		   .row_bytes = row,
		   .frame_bytes = row * (size_t)clip->height,
		   .frames = MAX_OF(frames, 1),
		   .height = clip->height,
		   .width = clip->width,
		   .channels = vae->pixel_channels,
		   .patch = vae->patch,
	   });
}

static int clip_decode(struct clip *clip, const float *latents, uint8_t *ret_rgb,
		       struct kernel_queue *queue)
{
	const struct backend *backend = &clip->model->backend;
	struct op_context op = { .backend = backend, .queue = queue, .planning = true };
	struct arena arena;
	size_t bytes;
	void *block;
	int r;

	arena_measure(&arena);
	clip_layout(clip, &arena);
	clip_run(clip, &op);
	(void)arena_take(&arena, "workspace", op.workspace.bytes, 1);
	if (op.status < 0 || arena.overflowed)
		return op.status < 0 ? op.status : -EOVERFLOW;
	bytes = arena.used;
	r = model_memory_check(clip->model, bytes, NULL);
	if (r < 0)
		return r;
	r = backend->table->allocate(backend->device, bytes, &block);
	if (r < 0)
		return r;
	arena_place(&arena, block, bytes);
	clip_layout(clip, &arena);
	op.workspace.data = arena_take(&arena, "workspace", op.workspace.bytes, 1);
	op.planning = false;
	vae_decoder_reset(&clip->decoder);
	op_upload(&op, clip->latents, latents, clip->latent_count * sizeof(float));
	clip_run(clip, &op);
	op_download(&op, ret_rgb, clip->rgb, clip->pixels);
	r = op_wait(&op);
	backend->table->release(backend->device, block, bytes);
	return r;
}

int sana_decode_clip(struct sana_model *model, const float *latents, int count, int width,
		     int height, uint8_t *ret_rgb, struct sana_error *error)
{
	const struct stream_config *config = &model->config.stream;
	const struct backend *backend = &model->backend;
	_cleanup_(freep) struct clip *clip = calloc(1, sizeof(*clip));
	struct kernel_queue *queue;
	int r;

	if (!clip)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a clip.");
	if (count < 1 || width < 1 || height < 1 || width % config->spatial_ratio ||
	    height % config->spatial_ratio)
		return sana_error_set(
			error, -EINVAL, "clip.size",
			"A clip has at least one latent and sides that are multiples of "
			"%d, not %d latents of %dx%d.",
			config->spatial_ratio, count, width, height);
	clip->model = model;
	clip->count = count;
	clip->width = width;
	clip->height = height;
	clip->latent_count = (size_t)count * (size_t)(height / config->spatial_ratio) *
			     (size_t)(width / config->spatial_ratio) *
			     (size_t)config->latent_channels;
	clip->pixels = (1 + (size_t)(count - 1) * (size_t)config->temporal_ratio) * (size_t)width *
		       (size_t)height * (size_t)model->config.vae.pixel_channels;
	r = vae_decoder_init(&clip->decoder, &model->config.vae, &model->networks.vae, height,
			     width, count, true);
	if (r < 0)
		return sana_error_set(error, r, "clip.size", "The decoder cannot run at %dx%d.",
				      width, height);
	r = backend->table->queue_create(backend->device, 0, &queue);
	if (r >= 0) {
		r = clip_decode(clip, latents, ret_rgb, queue);
		backend->table->queue_destroy(backend->device, queue);
	}
	if (r == -ENOMEM)
		return sana_error_set(
			error, r, "memory",
			"No memory to decode %d latents of %dx%d at once: decode fewer.", count,
			width, height);
	if (r < 0)
		return sana_error_set(error, r, backend_fault_name(r),
				      "The clip was not decoded: %s.", backend_fault_text(r));
	return 0;
}
