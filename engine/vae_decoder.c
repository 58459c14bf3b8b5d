/* The video decoder: latents in, patches out; causal in any pieces, or a whole clip at once. */
#include <errno.h>

#include "engine/vae_common.h"

int vae_decoder_init(struct vae_decoder *decoder, const struct vae_config *config,
		     const struct vae_weights *weights, int height, int width, int max_latents,
		     bool whole_clip)
{
	struct vae_steps steps;
	int r;

	if (!vae_size_fits(config, 'd', height, width) || max_latents < 1 ||
	    max_latents > INT32_MAX / config->temporal_ratio)
		return -EINVAL;
	r = vae_steps_list(config, 'd', height, width, &steps);
	if (r < 0)
		return r;
	decoder->config = config;
	decoder->weights = weights;
	decoder->height = height;
	decoder->width = width;
	decoder->max_latents = max_latents;
	decoder->whole_clip = whole_clip;
	vae_decoder_reset(decoder);
	return 0;
}

/* init has listed the same steps, so this cannot fail. */
static void decoder_steps(const struct vae_decoder *decoder, struct vae_steps *ret)
{
	(void)vae_steps_list(decoder->config, 'd', decoder->height, decoder->width, ret);
}

void vae_decoder_layout_state(struct vae_decoder *decoder, const struct backend *backend,
			      struct arena *arena)
{
	struct vae_steps steps;

	if (decoder->whole_clip)
		return;
	decoder_steps(decoder, &steps);
	vae_contexts_layout(&steps, backend, arena, decoder->context);
}

void vae_decoder_layout_scratch(struct vae_decoder *decoder, const struct backend *backend,
				struct arena *arena)
{
	struct vae_steps steps;
	int frames = decoder->max_latents;
	size_t most;

	decoder_steps(decoder, &steps);
	most = vae_volume_bytes(backend, frames, steps.step[0].height, steps.step[0].width,
				steps.step[0].cin);
	for (int i = 0; i < steps.count - 1; i++) {
		const struct vae_step *step = &steps.step[i];

		frames *= step->stride_t;
		most = MAX_OF(most, vae_volume_bytes(backend, frames, step->height * step->stride_h,
						     step->width * step->stride_w, step->cout));
	}
	most = MAX_OF(most, vae_patches_bytes(decoder->config, backend, frames, decoder->height,
					      decoder->width));
	decoder->scratch_bytes = most;
	for (int i = 0; i < VAE_SCRATCHES; i++)
		decoder->scratch[i] = arena_take(arena, "scratch/VAE decoder", 1, most);
}

void vae_decoder_reset(struct vae_decoder *decoder)
{
	vae_flags_pretend(false, false, decoder->context, decoder->resampler);
}

/* Returns the number of frames made. */
static int decoder_pass(struct vae_decoder *decoder, struct op_context *context,
			const float *latents, int count, void *patches)
{
	const struct vae_config *config = decoder->config;
	const size_t latent_pixels = (size_t)(decoder->height / config->spatial_ratio) *
				     (decoder->width / config->spatial_ratio);
	struct vae_steps steps;
	struct vae_pass pass = {
		.steps = &steps,
		.weights = &decoder->weights->decoder,
		.contexts = decoder->whole_clip ? NULL : decoder->context,
		.padding = config->decoder_reflect ? KERNEL_PAD_REFLECT : KERNEL_PAD_ZERO,
		.resample = KERNEL_DEPTH_TO_SPACE,
		.scratch = decoder->scratch,
		.tap = decoder->tap,
		.op = context,
		.raw = decoder->scratch[0],
		.frames = count,
	};

	OP(context, channel_affine,
	   { .x = latents,
	     .x_is_float = true,
	     .y = decoder->scratch[0],
	     .scale = decoder->weights->from_scale,
	     .shift = decoder->weights->from_shift,
	     .rows = (size_t)count * latent_pixels,
	     .ldx = (size_t)config->latent_channels,
	     .channels = config->latent_channels });
	decoder_steps(decoder, &steps);
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];
		bool drop = false;

		if (step->role == VAE_ROLE_OUT && !patches)
			patches = decoder->patches = vae_scratch_other(&pass, pass.norm, NULL);
		if (step->stride_t == 2) {
			drop = !decoder->resampler[step->group].started;
			decoder->resampler[step->group].started = true;
		}
		vae_pass_step(&pass, i, drop, patches, step->cout);
	}
	return pass.frames;
}

int vae_decoder_run(struct vae_decoder *decoder, struct op_context *context, const float *latents,
		    int count, void *patches, int *ret_frames)
{
	struct vae_flags flags;
	int made;

	if (count < 1 || count > decoder->max_latents)
		return -EINVAL;
	if (decoder->whole_clip)
		vae_decoder_reset(decoder);
	vae_flags_save(&flags, decoder->context, decoder->resampler);
	if (context->planning && !decoder->whole_clip) {
		/* First the first call, then a running stream, which makes most. */
		vae_flags_pretend(false, false, decoder->context, decoder->resampler);
		if (!context->ledger)
			(void)decoder_pass(decoder, context, latents, count, patches);
		vae_flags_pretend(true, false, decoder->context, decoder->resampler);
	}
	made = decoder_pass(decoder, context, latents, count, patches);
	if (context->planning || context->status < 0)
		vae_flags_restore(&flags, decoder->context, decoder->resampler);
	if (context->status < 0)
		return context->status;
	*ret_frames = made;
	return 0;
}
