/* The VAE's halves as lists of convolutions, and what follows from them: weights, contexts, cost. */
#include <errno.h>
#include <math.h>

#include "engine/vae_common.h"

enum { VAE_TAPS = 27 };

struct lister {
	struct vae_steps *steps;
	int height, width, frames_per_latent; /* of the next convolution's input */
	bool overflowed;
};

static struct vae_step *step_add(struct lister *lister, enum vae_role role, int group, int span,
				 int cin, int cout)
{
	struct vae_steps *steps = lister->steps;
	struct vae_step *step;

	if (steps->count == VAE_MAX_CONVOLUTIONS) {
		lister->overflowed = true;
		return &steps->step[VAE_MAX_CONVOLUTIONS - 1];
	}
	step = &steps->step[steps->count++];
	*step = (struct vae_step){
		.role = role,
		.group = group,
		.span = span,
		.cin = cin,
		.cout = cout,
		.rows = cout,
		.height = lister->height,
		.width = lister->width,
		.frames_per_latent = lister->frames_per_latent,
		.stride_t = 1,
		.stride_h = 1,
		.stride_w = 1,
	};
	return step;
}

static void resnets_add(struct lister *lister, int group, int span, int channels, int resnets)
{
	for (int layer = 0; layer < resnets; layer++) {
		step_add(lister, VAE_ROLE_FIRST, group, span, channels, channels)->layer = layer;
		step_add(lister, VAE_ROLE_SECOND, group, span, channels, channels)->layer = layer;
	}
}

static void resampler_add(struct lister *lister, const struct vae_block *block, int group, int span)
{
	const int phases = block->stride_t * block->stride_h * block->stride_w;
	struct vae_step *step =
		step_add(lister, VAE_ROLE_RESAMPLE, group, span, block->cin, block->cout);

	step->stride_t = block->stride_t;
	step->stride_h = block->stride_h;
	step->stride_w = block->stride_w;
	if (lister->steps->half == 'e') {
		step->rows = block->cout / phases;
		lister->height /= block->stride_h;
		lister->width /= block->stride_w;
		lister->frames_per_latent /= block->stride_t;
	} else {
		step->rows = block->cout * phases;
		lister->height *= block->stride_h;
		lister->width *= block->stride_w;
		lister->frames_per_latent *= block->stride_t;
	}
}

static void encoder_list(struct lister *lister, const struct vae_config *config)
{
	const int patch_channels = config->pixel_channels * config->patch * config->patch;
	const int last_span = config->encoder_blocks + 1;

	step_add(lister, VAE_ROLE_IN, 0, 0, patch_channels, config->encoder_first);
	for (int b = 0; b < config->encoder_blocks; b++) {
		resnets_add(lister, b, b + 1, config->encoder[b].cin, config->encoder[b].resnets);
		resampler_add(lister, &config->encoder[b], b, b + 1);
	}
	resnets_add(lister, VAE_GROUP_MID, last_span, config->encoder_mid,
		    config->encoder_mid_resnets);
	/* One row more than latent channels: the shared log-variance, which a stream does not need. */
	step_add(lister, VAE_ROLE_OUT, 0, last_span, config->encoder_mid,
		 config->latent_channels + 1);
}

static void decoder_list(struct lister *lister, const struct vae_config *config)
{
	const int patch_channels = config->pixel_channels * config->patch * config->patch;

	step_add(lister, VAE_ROLE_IN, 0, 0, config->latent_channels, config->decoder_mid);
	resnets_add(lister, VAE_GROUP_MID, 1, config->decoder_mid, config->decoder_mid_resnets);
	for (int b = 0; b < config->decoder_blocks; b++) {
		resampler_add(lister, &config->decoder[b], b, b + 1);
		resnets_add(lister, b, b + 2, config->decoder[b].cout, config->decoder[b].resnets);
	}
	step_add(lister, VAE_ROLE_OUT, 0, config->decoder_blocks + 1, config->decoder_last,
		 patch_channels);
}

/* A module is conv_in, one block with its resampler, the mid block, or conv_out. */
static bool same_module(const struct vae_step *a, const struct vae_step *b)
{
	if (a->role == VAE_ROLE_IN || b->role == VAE_ROLE_OUT)
		return false;
	return a->group == b->group;
}

int vae_steps_list(const struct vae_config *config, char half, int height, int width,
		   struct vae_steps *ret)
{
	const bool encoder = half == 'e';
	const int ratio = encoder ? config->patch : config->spatial_ratio;
	struct lister lister = {
		.steps = ret,
		.height = height / ratio,
		.width = width / ratio,
		.frames_per_latent = encoder ? config->temporal_ratio : 1,
	};
	int mid_resnets, before_mid;

	ret->half = half;
	ret->count = 0;
	if (encoder)
		encoder_list(&lister, config);
	else
		decoder_list(&lister, config);
	if (lister.overflowed)
		return -E2BIG;
	for (int i = 0; i < ret->count; i++)
		ret->step[i].ends_module = i == ret->count - 1 ||
					   !same_module(&ret->step[i], &ret->step[i + 1]);
	mid_resnets = encoder ? config->encoder_mid_resnets : config->decoder_mid_resnets;
	before_mid = encoder ? ret->count - 2 : 0;
	ret->step[before_mid].empty_mid_follows = mid_resnets == 0;
	return 0;
}

bool vae_size_fits(const struct vae_config *config, char half, int height, int width)
{
	const bool reflect = half == 'e' ? config->encoder_reflect : config->decoder_reflect;
	const int ratio = config->spatial_ratio;
	const int least = reflect ? 2 * ratio : ratio;

	return height % ratio == 0 && width % ratio == 0 && height >= least && width >= least &&
	       height <= MODEL_MAX_PIXELS && width <= MODEL_MAX_PIXELS;
}

/* ------------------------------------------------------------------------------------- weights */

/* The state-dict name of a convolution, without ".conv.weight". */
static void step_key(const struct vae_step *step, char half, char *to, size_t bytes)
{
	const char *coder = half == 'e' ? "encoder" : "decoder";
	const char *direction = half == 'e' ? "down" : "up";

	switch (step->role) {
	case VAE_ROLE_IN:
		(void)snprintf(to, bytes, "%s.conv_in", coder);
		break;
	case VAE_ROLE_OUT:
		(void)snprintf(to, bytes, "%s.conv_out", coder);
		break;
	case VAE_ROLE_RESAMPLE:
		(void)snprintf(to, bytes, "%s.%s_blocks.%d.%ssamplers.0.conv", coder, direction,
			       step->group, direction);
		break;
	case VAE_ROLE_FIRST:
	case VAE_ROLE_SECOND:
		if (step->group == VAE_GROUP_MID)
			(void)snprintf(to, bytes, "%s.mid_block.resnets.%d.conv%d", coder,
				       step->layer, step->role == VAE_ROLE_FIRST ? 1 : 2);
		else
			(void)snprintf(to, bytes, "%s.%s_blocks.%d.resnets.%d.conv%d", coder,
				       direction, step->group, step->layer,
				       step->role == VAE_ROLE_FIRST ? 1 : 2);
		break;
	}
}

static void half_load(struct loader *loader, const struct vae_config *config, char half,
		      struct vae_half_weights *ret)
{
	char key[MODEL_KEY_NAME_BYTES / 2];
	struct vae_steps steps;
	int r;

	/* Channels alone matter here, so the size of the picture may be any. */
	r = vae_steps_list(config, half, config->spatial_ratio, config->spatial_ratio, &steps);
	if (r < 0) {
		loader->status = loader->status < 0 ? loader->status : r;
		return;
	}
	ret->count = steps.count;
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];
		struct vae_convolution *to = &ret->convolution[i];

		step_key(step, half, key, sizeof(key));
		loader_matrix(loader, &to->weight, step->rows, step->cin, VAE_TAPS,
			      "%s.conv.weight", key);
		loader_vector(loader, &to->bias, (size_t)step->rows, "%s.conv.bias", key);
	}
}

/* mean [n], std [n], then the four derived vectors are placed one after the other. */
static void statistics_load(struct loader *loader, const struct vae_config *config,
			    bool with_statistics, struct vae_weights *ret)
{
	const size_t n = (size_t)config->latent_channels;
	const struct weight_tensor *mean = NULL, *deviation = NULL;
	_cleanup_(freep) float *values = calloc(6 * n, sizeof(*values));
	float *to_scale, *to_shift;

	if (!values) {
		loader->status = loader->status < 0 ? loader->status : -ENOMEM;
		return;
	}
	to_scale = values + 2 * n;
	to_shift = values + 3 * n;
	if (with_statistics && !loader->measuring) {
		mean = weights_find(loader->table, "latents_mean");
		deviation = weights_find(loader->table, "latents_std");
		if (!mean || !deviation)
			loader->status = loader->status < 0 ? loader->status : -ENOENT;
	}
	for (size_t c = 0; c < n; c++)
		values[n + c] = 1;
	if (mean && deviation) {
		weights_read_float(mean, values, n);
		weights_read_float(deviation, values + n, n);
	}
	for (size_t c = 0; c < n; c++) {
		const double factor = with_statistics ? (double)config->scaling_factor : 1;

		to_scale[c] = (float)(factor / (double)values[n + c]);
		to_shift[c] = (float)(-(double)values[c] * factor / (double)values[n + c]);
		values[n + c] = (float)((double)values[n + c] / factor);
		if (!isfinite(to_scale[c]) || !isfinite(to_shift[c]) || !isfinite(values[n + c]))
			loader->status = loader->status < 0 ? loader->status : -EINVAL;
	}
	loader_floats(loader, &ret->to_scale, to_scale, n);
	loader_floats(loader, &ret->to_shift, to_shift, n);
	loader_floats(loader, &ret->from_scale, values + n, n);
	loader_floats(loader, &ret->from_shift, values, n);
}

void vae_weights_load(struct loader *loader, const struct vae_config *config, bool with_statistics,
		      struct vae_weights *ret)
{
	half_load(loader, config, 'e', &ret->encoder);
	half_load(loader, config, 'd', &ret->decoder);
	statistics_load(loader, config, with_statistics, ret);
}

/* ------------------------------------------------------------------------------------ contexts */

/* What a step adds to the name of its line; `first` when it opens the line. */
static void part_name(const struct vae_step *step, char half, bool first, char *to, size_t bytes)
{
	switch (step->role) {
	case VAE_ROLE_IN:
		(void)snprintf(to, bytes, "conv_in");
		break;
	case VAE_ROLE_OUT:
		(void)snprintf(to, bytes, "conv_out");
		break;
	case VAE_ROLE_RESAMPLE:
		if (half == 'd')
			(void)snprintf(to, bytes, "up%d conv", step->group);
		else if (first)
			(void)snprintf(to, bytes, "block %d down", step->group);
		else
			(void)snprintf(to, bytes, "down");
		break;
	case VAE_ROLE_FIRST:
	case VAE_ROLE_SECOND:
		if (step->group == VAE_GROUP_MID)
			(void)snprintf(to, bytes, "mid");
		else if (half == 'e')
			(void)snprintf(to, bytes, "block %d resnets", step->group);
		else
			(void)snprintf(to, bytes, "up%d resnets", step->group);
		break;
	}
}

/* Whether two steps name the same part of a line: the convolutions of one group's resnets. */
static bool same_part(const struct vae_step *a, const struct vae_step *b)
{
	const bool resnet_a = a->role == VAE_ROLE_FIRST || a->role == VAE_ROLE_SECOND;
	const bool resnet_b = b->role == VAE_ROLE_FIRST || b->role == VAE_ROLE_SECOND;

	return resnet_a && resnet_b && a->group == b->group;
}

static bool same_context(const struct vae_step *a, const struct vae_step *b)
{
	return a->cin == b->cin && a->height == b->height && a->width == b->width;
}

static void line_begin(struct vae_context_line *line, const struct vae_step *step, char half,
		       size_t element_bytes)
{
	char part[32];

	part_name(step, half, true, part, sizeof(part));
	*line = (struct vae_context_line){
		.channels = step->cin,
		.height = step->height,
		.width = step->width,
		.bytes_each = (size_t)2 * step->cin * step->height * step->width * element_bytes,
	};
	(void)snprintf(line->name, sizeof(line->name), "%s %s", half == 'e' ? "encoder" : "decoder",
		       part);
}

/* Groups the steps; line_of[i] (or NULL) is the line of step i. Returns the number of lines. */
static int lines_group(const struct vae_steps *steps, size_t element_bytes, int *line_of,
		       struct vae_context_line lines[VAE_MAX_CONTEXT_LINES])
{
	int count = 0;

	for (int i = 0; i < steps->count; i++) {
		const struct vae_step *step = &steps->step[i];
		const struct vae_step *before = i > 0 ? &steps->step[i - 1] : NULL;
		const bool begins = !before || before->span != step->span ||
				    !same_context(before, step);
		struct vae_context_line *line;
		size_t used;

		if (begins && count < VAE_MAX_CONTEXT_LINES)
			line_begin(&lines[count++], step, steps->half, element_bytes);
		line = &lines[count - 1];
		used = strlen(line->name);
		if (!begins && !same_part(before, step) && used + 4 < sizeof(line->name)) {
			memcpy(line->name + used, " + ", 4);
			part_name(step, steps->half, false, line->name + used + 3,
				  sizeof(line->name) - used - 3);
		}
		line->convolutions++;
		line->bytes += line->bytes_each;
		if (line_of)
			line_of[i] = count - 1;
	}
	return count;
}

int vae_context_lines(const struct vae_config *config, char which, int height, int width,
		      enum kernel_dtype dtype, struct vae_context_line lines[VAE_MAX_CONTEXT_LINES])
{
	struct vae_steps steps;

	if (vae_steps_list(config, which, height, width, &steps) < 0)
		return 0;
	return lines_group(&steps, kernel_dtype_bytes(dtype), NULL, lines);
}

void vae_contexts_layout(const struct vae_steps *steps, const struct backend *backend,
			 struct arena *arena, struct vae_context *contexts)
{
	struct vae_context_line lines[VAE_MAX_CONTEXT_LINES];
	int line_of[VAE_MAX_CONVOLUTIONS];
	char name[ARENA_NAME_BYTES];

	(void)lines_group(steps, activation_bytes(backend), line_of, lines);
	for (int i = 0; i < steps->count; i++) {
		const struct vae_step *step = &steps->step[i];
		const char *part = strchr(lines[line_of[i]].name, ' ') + 1;

		(void)snprintf(name, sizeof(name), "VAE %s contexts/%s",
			       steps->half == 'e' ? "encoder" : "decoder", part);
		contexts[i].bytes =
			vae_volume_bytes(backend, 2, step->height, step->width, step->cin);
		contexts[i].frames = arena_take(arena, name, 1, contexts[i].bytes);
	}
}

/* ---------------------------------------------------------------------------------------- cost */

static double half_flops(const struct vae_config *config, char half, int height, int width,
			 int latents)
{
	struct vae_steps steps;
	double flops = 0;

	if (vae_steps_list(config, half, height, width, &steps) < 0)
		return 0;
	for (int i = 0; i < steps.count; i++) {
		const struct vae_step *step = &steps.step[i];
		const double pixels =
			(double)latents * step->frames_per_latent * step->height * step->width;

		flops += 2 * pixels * step->rows * VAE_TAPS * step->cin;
	}
	return flops;
}

double vae_encode_flops(const struct vae_config *config, int height, int width, int latents)
{
	return half_flops(config, 'e', height, width, latents);
}

double vae_decode_flops(const struct vae_config *config, int height, int width, int latents)
{
	return half_flops(config, 'd', height, width, latents);
}
