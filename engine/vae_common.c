/* One pass over a half of the VAE: which buffer each convolution reads and writes. */
#include "engine/vae_common.h"

size_t vae_volume_bytes(const struct backend *backend, int frames, int height, int width,
			int channels)
{
	size_t bytes = activation_bytes(backend);

	if (size_mul_overflows(bytes, (size_t)frames, &bytes) ||
	    size_mul_overflows(bytes, (size_t)height, &bytes) ||
	    size_mul_overflows(bytes, (size_t)width, &bytes) ||
	    size_mul_overflows(bytes, (size_t)channels, &bytes))
		return SIZE_MAX;
	return bytes;
}

void vae_flags_save(struct vae_flags *flags, const struct vae_context *contexts,
		    const struct vae_resampler_state *resamplers)
{
	for (int i = 0; i < VAE_MAX_CONVOLUTIONS; i++)
		flags->set[i] = contexts[i].set;
	for (int b = 0; b < MODEL_MAX_VAE_BLOCKS; b++) {
		flags->started[b] = resamplers[b].started;
		flags->has_pending[b] = resamplers[b].has_pending;
	}
}

void vae_flags_restore(const struct vae_flags *flags, struct vae_context *contexts,
		       struct vae_resampler_state *resamplers)
{
	for (int i = 0; i < VAE_MAX_CONVOLUTIONS; i++)
		contexts[i].set = flags->set[i];
	for (int b = 0; b < MODEL_MAX_VAE_BLOCKS; b++) {
		resamplers[b].started = flags->started[b];
		resamplers[b].has_pending = flags->has_pending[b];
	}
}

void vae_flags_pretend(bool started, bool has_pending, struct vae_context *contexts,
		       struct vae_resampler_state *resamplers)
{
	for (int i = 0; i < VAE_MAX_CONVOLUTIONS; i++)
		contexts[i].set = started;
	for (int b = 0; b < MODEL_MAX_VAE_BLOCKS; b++) {
		resamplers[b].started = started;
		resamplers[b].has_pending = has_pending;
	}
}

void *vae_scratch_other(const struct vae_pass *pass, const void *a, const void *b)
{
	for (int i = 0; i < VAE_SCRATCHES; i++)
		if (pass->scratch[i] != a && pass->scratch[i] != b)
			return pass->scratch[i];
	/* Only an arena that overflowed while planning gives equal buffers; nothing runs on those. */
	return pass->scratch[0];
}

size_t vae_patches_bytes(const struct vae_config *config, const struct backend *backend, int frames,
			 int height, int width)
{
	return vae_volume_bytes(backend, frames, height, width, config->pixel_channels);
}

static void module_name(const struct vae_step *step, char half, char *to, size_t bytes)
{
	const char *coder = half == 'e' ? "encoder" : "decoder";

	if (step->role == VAE_ROLE_IN)
		(void)snprintf(to, bytes, "%s.conv_in", coder);
	else if (step->role == VAE_ROLE_OUT)
		(void)snprintf(to, bytes, "%s.conv_out", coder);
	else if (step->group == VAE_GROUP_MID)
		(void)snprintf(to, bytes, "%s.mid_block", coder);
	else
		(void)snprintf(to, bytes, "%s.%s_blocks.%d", coder, half == 'e' ? "down" : "up",
			       step->group);
}

static void tap_call(const struct vae_pass *pass, const struct vae_step *step, const void *data,
		     int height, int width, int channels)
{
	const char half = pass->steps->half;
	char name[48];

	if (pass->op->planning || pass->op->status < 0)
		return;
	module_name(step, half, name, sizeof(name));
	pass->tap->output(pass->tap->context, name, data, pass->frames, height, width, channels);
	if (!step->empty_mid_follows)
		return;
	(void)snprintf(name, sizeof(name), "%s.mid_block", half == 'e' ? "encoder" : "decoder");
	pass->tap->output(pass->tap->context, name, data, pass->frames, height, width, channels);
}

/* Where the outputs of step i go: raw and norm are NULL when nobody reads them. */
static void outputs_choose(const struct vae_pass *pass, int i, void *y, void **ret_raw,
			   void **ret_norm)
{
	const struct vae_step *step = &pass->steps->step[i];
	const bool tapped = pass->tap && step->ends_module;

	*ret_raw = NULL;
	*ret_norm = NULL;
	switch (step->role) {
	case VAE_ROLE_FIRST:
		*ret_norm = vae_scratch_other(pass, pass->raw, pass->norm);
		return;
	case VAE_ROLE_OUT:
		*ret_raw = y;
		return;
	case VAE_ROLE_SECOND:
		/* The residual is in scratch and may be overwritten by the sum. */
		*ret_raw = (void *)pass->raw;
		*ret_norm = vae_scratch_other(pass, pass->raw, pass->norm);
		break;
	case VAE_ROLE_IN:
	case VAE_ROLE_RESAMPLE:
		*ret_raw = vae_scratch_other(pass, pass->raw, NULL);
		*ret_norm = vae_scratch_other(pass, pass->raw, *ret_raw);
		break;
	}
	/* step[1] exists: only VAE_ROLE_OUT is last, and it has returned. */
	if (step[1].role == VAE_ROLE_RESAMPLE)
		*ret_norm = NULL;
	if (step[1].role == VAE_ROLE_OUT && !tapped)
		*ret_raw = NULL;
}

static int frames_after(const struct vae_pass *pass, const struct vae_step *step, bool drop)
{
	if (pass->steps->half == 'e')
		return pass->frames / step->stride_t;
	return pass->frames * step->stride_t - drop;
}

static int size_after(const struct vae_pass *pass, int size, int stride)
{
	return pass->steps->half == 'e' ? size / stride : size * stride;
}

void vae_pass_step(struct vae_pass *pass, int i, bool drop_first_frame, void *y, int channels)
{
	const struct vae_step *step = &pass->steps->step[i];
	const struct vae_convolution *convolution = &pass->weights->convolution[i];
	const bool reads_raw = step->role == VAE_ROLE_IN || step->role == VAE_ROLE_RESAMPLE;
	struct vae_context *context = pass->contexts ? &pass->contexts[i] : NULL;
	const int cout = step->role == VAE_ROLE_OUT ? channels : step->cout;
	void *raw, *norm;

	outputs_choose(pass, i, y, &raw, &norm);
	OP(pass->op, conv3d,
	   { .x = reads_raw ? pass->raw : pass->norm,
	     .context = context ? context->frames : NULL,
	     .context_set = context && context->set,
	     .weight = &convolution->weight,
	     .bias = convolution->bias,
	     .residual = step->role == VAE_ROLE_SECOND ? pass->raw : NULL,
	     .y = raw,
	     .y_norm = norm,
	     .padding = pass->padding,
	     .resample = step->role == VAE_ROLE_RESAMPLE ? pass->resample : KERNEL_RESAMPLE_NONE,
	     .stride_t = step->stride_t,
	     .stride_h = step->stride_h,
	     .stride_w = step->stride_w,
	     .drop_first_frame = drop_first_frame,
	     .frames = pass->frames,
	     .height = step->height,
	     .width = step->width,
	     .cin = step->cin,
	     .cout = cout });
	if (context)
		context->set = true;
	pass->frames = frames_after(pass, step, drop_first_frame);
	if (pass->tap && step->ends_module)
		tap_call(pass, step, raw, size_after(pass, step->height, step->stride_h),
			 size_after(pass, step->width, step->stride_w), cout);
	if (step->role != VAE_ROLE_FIRST)
		pass->raw = raw;
	pass->norm = norm;
}
