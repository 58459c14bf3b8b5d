/* The causal video encoder: patches in, latents out, in any pieces. */
#include <errno.h>

#include "engine/vae_common.h"

int vae_encoder_init(struct vae_encoder *encoder, const struct vae_config *config,
		     const struct vae_weights *weights, int height, int width, int max_frames)
{
	struct vae_steps steps;
	int r;

	if (!vae_size_fits(config, 'e', height, width) || max_frames < 1 || max_frames == INT32_MAX)
		return -EINVAL;
	r = vae_steps_list(config, 'e', height, width, &steps);
	if (r < 0)
		return r;
	encoder->config = config;
	encoder->weights = weights;
	encoder->height = height;
	encoder->width = width;
	encoder->max_frames = max_frames;
	vae_encoder_reset(encoder);
	return 0;
}

/* init has listed the same steps, so this cannot fail. */
static void encoder_steps(const struct vae_encoder *encoder, struct vae_steps *ret)
{
	(void)vae_steps_list(encoder->config, 'e', encoder->height, encoder->width, ret);
}

void vae_encoder_layout_state(struct vae_encoder *encoder, const struct backend *backend,
			      struct arena *arena)
{
	struct vae_steps steps;

	encoder_steps(encoder, &steps);
	vae_contexts_layout(&steps, backend, arena, encoder->context);
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];

		if (step->role != VAE_ROLE_RESAMPLE || step->stride_t == 1)
			continue;
		encoder->resampler[step->group].pending = arena_take(
			arena, "VAE encoder contexts/pending frames", 1,
			vae_volume_bytes(backend, 1, step->height, step->width, step->cin));
	}
}

void vae_encoder_layout_scratch(struct vae_encoder *encoder, const struct backend *backend,
				struct arena *arena)
{
	struct vae_steps steps;
	int frames = encoder->max_frames;
	size_t most = 0;

	encoder_steps(encoder, &steps);
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];

		if (step->stride_t == 2) {
			/* With the duplicated or pending frame in front. */
			most = MAX_OF(most, vae_volume_bytes(backend, frames + 1, step->height,
							     step->width, step->cin));
			frames = (frames + 1) / 2;
		}
		most = MAX_OF(most, vae_volume_bytes(backend, frames, step->height / step->stride_h,
						     step->width / step->stride_w, step->cout));
	}
	most = MAX_OF(most, vae_patches_bytes(encoder->config, backend, encoder->max_frames,
					      encoder->height, encoder->width));
	encoder->scratch_bytes = most;
	for (int i = 0; i < VAE_SCRATCHES; i++)
		encoder->scratch[i] = arena_take(arena, "scratch/VAE encoder", 1, most);
	encoder->patches = encoder->scratch[0];
}

void vae_encoder_reset(struct vae_encoder *encoder)
{
	vae_flags_pretend(false, false, encoder->context, encoder->resampler);
}

/*
 * Frames of a temporal down-sampler go in pairs: puts the frame that stands before these in front
 * (the one that waited, or at the start of the stream a copy of the first) and lets an odd last one
 * wait. Afterwards pass->frames is even, perhaps 0. A stream that is fed whole latents never copies
 * here after its first frame.
 */
static void frames_pair(struct vae_pass *pass, const struct vae_step *step,
			struct vae_resampler_state *state)
{
	const size_t bytes =
		vae_volume_bytes(pass->op->backend, 1, step->height, step->width, step->cin);
	const void *front = !state->started    ? pass->raw :
			    state->has_pending ? state->pending :
						 NULL;

	if (front) {
		char *joined = vae_scratch_other(pass, pass->raw, NULL);

		op_copy(pass->op, joined, front, bytes);
		op_copy(pass->op, joined + bytes, pass->raw, (size_t)pass->frames * bytes);
		pass->raw = joined;
		pass->frames++;
	}
	state->started = true;
	state->has_pending = pass->frames % 2;
	if (!state->has_pending)
		return;
	pass->frames--;
	op_copy(pass->op, state->pending, (const char *)pass->raw + (size_t)pass->frames * bytes,
		bytes);
}

/* Returns the number of latents made. */
static int encoder_pass(struct vae_encoder *encoder, struct op_context *context,
			const void *patches, int frames, float *latents)
{
	const struct vae_config *config = encoder->config;
	/* The log-variance is of no use but to a test that looks at all outputs of conv_out. */
	const int channels = config->latent_channels + (encoder->tap ? 1 : 0);
	const size_t latent_pixels = (size_t)(encoder->height / config->spatial_ratio) *
				     (encoder->width / config->spatial_ratio);
	struct vae_steps steps;
	struct vae_pass pass = {
		.steps = &steps,
		.weights = &encoder->weights->encoder,
		.contexts = encoder->context,
		.padding = config->encoder_reflect ? KERNEL_PAD_REFLECT : KERNEL_PAD_ZERO,
		.resample = KERNEL_SPACE_TO_DEPTH,
		.scratch = encoder->scratch,
		.tap = encoder->tap,
		.op = context,
		.raw = patches,
		.frames = frames,
	};

	encoder_steps(encoder, &steps);
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];
		void *y = step->role == VAE_ROLE_OUT ? vae_scratch_other(&pass, pass.norm, NULL) :
						       NULL;

		if (step->stride_t == 2)
			frames_pair(&pass, step, &encoder->resampler[step->group]);
		if (pass.frames == 0)
			return 0;
		vae_pass_step(&pass, i, false, y, channels);
	}
	OP(context, channel_affine,
	   { .x = pass.raw,
	     .y = latents,
	     .y_is_float = true,
	     .scale = encoder->weights->to_scale,
	     .shift = encoder->weights->to_shift,
	     .rows = (size_t)pass.frames * latent_pixels,
	     .ldx = (size_t)channels,
	     .channels = config->latent_channels });
	return pass.frames;
}

int vae_encoder_run(struct vae_encoder *encoder, struct op_context *context, const void *patches,
		    int frames, float *latents, int *ret_latents)
{
	struct vae_flags flags;
	int made;

	if (frames < 1 || frames > encoder->max_frames)
		return -EINVAL;
	vae_flags_save(&flags, encoder->context, encoder->resampler);
	if (context->ledger) {
		vae_flags_pretend(true, false, encoder->context, encoder->resampler);
	} else if (context->planning) {
		/* Running, running with frames that wait, and last the first call, which makes most. */
		vae_flags_pretend(true, false, encoder->context, encoder->resampler);
		(void)encoder_pass(encoder, context, patches, frames, latents);
		vae_flags_pretend(true, true, encoder->context, encoder->resampler);
		(void)encoder_pass(encoder, context, patches, frames, latents);
		vae_flags_pretend(false, false, encoder->context, encoder->resampler);
	}
	made = encoder_pass(encoder, context, patches, frames, latents);
	if (context->planning || context->status < 0)
		vae_flags_restore(&flags, encoder->context, encoder->resampler);
	if (context->status < 0)
		return context->status;
	*ret_latents = made;
	return 0;
}
