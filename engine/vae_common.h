/*
 * What the VAE's encoder and decoder share: each half as a list of its convolutions, and one pass
 * over that list. Private to engine/vae_*.c.
 */
#pragma once

#include "engine/vae.h"

/*
 * What a convolution is for, which decides what it reads and writes: `raw` is the plain activation,
 * `norm` the same after norm and SiLU, made by the convolution before.
 */
enum vae_role {
	VAE_ROLE_IN,	   /* raw → raw */
	VAE_ROLE_FIRST,	   /* of a resnet: norm → norm, raw stays for the second */
	VAE_ROLE_SECOND,   /* of a resnet: norm + residual raw → raw */
	VAE_ROLE_RESAMPLE, /* raw → raw, with space-to-depth or depth-to-space */
	VAE_ROLE_OUT,	   /* norm → raw */
};

enum { VAE_GROUP_MID = -1 };

/* One convolution. */
struct vae_step {
	enum vae_role role;
	int group;	       /* block, or VAE_GROUP_MID */
	int layer;	       /* resnet of the group */
	int span;	       /* which part of the context table it belongs to */
	int cin, cout;	       /* channels before and after the convolution with its resampler */
	int rows;	       /* channels the convolution itself makes */
	int height, width;     /* of its input */
	int frames_per_latent; /* of its input, in steady state */
	int stride_t, stride_h, stride_w; /* all 1 unless RESAMPLE */
	bool ends_module;		  /* its output is the output of the module it belongs to */
	bool empty_mid_follows;		  /* … and that of a mid block without resnets */
};

/* One half ('e' or 'd') for a picture of height×width pixels. */
struct vae_steps {
	char half;
	int count;
	struct vae_step step[VAE_MAX_CONVOLUTIONS];
};

/* −E2BIG when there are more convolutions than VAE_MAX_CONVOLUTIONS. */
int vae_steps_list(const struct vae_config *config, char half, int height, int width,
		   struct vae_steps *ret);

/* Whether the picture fits the compression and, where it is reflected at its edges, is not too small. */
bool vae_size_fits(const struct vae_config *config, char half, int height, int width);

/* Places the contexts, one arena line per line of the context table. */
void vae_contexts_layout(const struct vae_steps *steps, const struct backend *backend,
			 struct arena *arena, struct vae_context *contexts);

/* Bytes of act [frames][height][width][channels]; SIZE_MAX when that does not fit. */
size_t vae_volume_bytes(const struct backend *backend, int frames, int height, int width,
			int channels);

/* All that a run changes on the host: saved before it, put back when it only planned or failed. */
struct vae_flags {
	bool set[VAE_MAX_CONVOLUTIONS];
	bool started[MODEL_MAX_VAE_BLOCKS], has_pending[MODEL_MAX_VAE_BLOCKS];
};

void vae_flags_save(struct vae_flags *flags, const struct vae_context *contexts,
		    const struct vae_resampler_state *resamplers);
void vae_flags_restore(const struct vae_flags *flags, struct vae_context *contexts,
		       struct vae_resampler_state *resamplers);

/* Flags of a stream that is running (started) or new, with or without frames waiting. */
void vae_flags_pretend(bool started, bool has_pending, struct vae_context *contexts,
		       struct vae_resampler_state *resamplers);

/* One walk over the steps of a half. */
struct vae_pass {
	const struct vae_steps *steps;
	const struct vae_half_weights *weights;
	struct vae_context *contexts; /* NULL: whole clip, not causal */
	enum kernel_padding padding;
	enum kernel_resample resample;
	void *const *scratch; /* [VAE_SCRATCHES] */
	const struct vae_tap *tap;
	struct op_context *op;
	const void *raw, *norm; /* of the current activation */
	int frames;		/* of it */
};

/* A scratch buffer that is neither a nor b. */
void *vae_scratch_other(const struct vae_pass *pass, const void *a, const void *b);

/* Patches of frames at height x width pixels. */
size_t vae_patches_bytes(const struct vae_config *config, const struct backend *backend, int frames,
			 int height, int width);

/*
 * Runs step i over pass->frames frames and advances raw, norm and frames. The last step writes
 * `channels` channels to `y`; others ignore both. drop_first_frame as in kernel_conv3d.
 */
void vae_pass_step(struct vae_pass *pass, int i, bool drop_first_frame, void *y, int channels);
