/*
 * One case of an op: values from a seed, the op on both sides, the results compared within the tolerance of
 * its kind. `sana-bench --self-test` takes the cases of check_cases, tests/cuda those and more. The
 * check_X_fill functions fill the blocks alone, for times and for tests of other things.
 */
#pragma once

#include "tools/bench/cuda_test.h"

struct linear_case {
	int rows, in, parts;
	int out[KERNEL_LINEAR_PARTS];
	size_t pad;	/* added to every row stride */
	int activation; /* of every part */
	bool mixed;	/* part i has the i-th activation after it */
	bool bias, residual, gate, in_place, floats;
};

/* One case's parameter blocks, and what they write. */
struct linear_run {
	struct kernel_linear cpu, gpu;
	struct cuda_weight weight[KERNEL_LINEAR_PARTS];
	struct cuda_tensor y[KERNEL_LINEAR_PARTS];
};

struct temporal_case {
	int frames, tokens, channels;
	bool left, left_out, gate, in_place; /* in_place: left_out is left */
};

void check_linear_fill(struct cuda_test *test, const struct linear_case *c, struct linear_run *run);
void check_linear(struct cuda_test *test, uint64_t seed, const struct linear_case *c);
void check_temporal(struct cuda_test *test, uint64_t seed, const struct temporal_case *c);

enum context { WHOLE_CLIP, CONTEXT_UNSET, CONTEXT_SET };
enum outputs { Y = 1, Y_NORM = 2, BOTH = 3 };

struct conv_case {
	int frames, height, width, cin, cout;
	enum kernel_padding padding;
	enum context context;
	enum kernel_resample resample;
	int stride[3];
	bool drop;
	enum outputs outputs;
	int residual;  /* 1: there is one, 2: it is y */
	int more_rows; /* of the weight than are used */
};

/* One op on both sides, and its tensors. */
struct conv_run {
	struct kernel_conv3d cpu, gpu;
	struct cuda_weight weight;
	struct cuda_tensor x, context, bias, residual, y, y_norm;
};

int check_conv_channels(const struct conv_case *c);
void check_conv_fill(struct cuda_test *test, const struct conv_case *c, struct conv_run *run);
void check_conv_describe(const struct conv_case *c, char *text, size_t bytes);
void check_conv_compare(struct cuda_test *test, const struct conv_case *c,
			const struct conv_run *run, const char *text);
void check_conv(struct cuda_test *test, uint64_t seed, const struct conv_case *c);

struct attention_case {
	int rows, tokens[KERNEL_SEGMENTS], heads, kv_heads, head_dim;
	size_t pad; /* added to the strides of q, k, v and gate */
	bool gate, causal, mask, in_place;
	int window;
	float softcap, spread; /* of q and k */
};

/* The same block for both sides. */
struct attention_run {
	struct kernel_attention cpu, gpu;
	struct cuda_tensor y;
};

struct gdn_case {
	int frames, height, width, heads, head_dim, pairs_t, pairs_y;
	size_t pad;
	bool state, state_out;
};

struct gdn_run {
	struct kernel_rope rope[2];
	struct kernel_gdn cpu, gpu;
	struct cuda_tensor wide, beta, y, state, normaliser;
};

struct gates_run {
	struct kernel_gdn_gates cpu, gpu;
	struct cuda_tensor beta, decay;
	struct cuda_weight weight[2];
};

void check_attention_fill(struct cuda_test *test, const struct attention_case *c,
			  struct attention_run *run);
void check_attention(struct cuda_test *test, uint64_t seed, const struct attention_case *c);
void check_gdn_fill(struct cuda_test *test, const struct gdn_case *c, struct gdn_run *run);
void check_gdn(struct cuda_test *test, uint64_t seed, const struct gdn_case *c);
/* frames, tokens, channels, heads */
void check_gates_fill(struct cuda_test *test, const int c[4], struct gates_run *run);
void check_gates(struct cuda_test *test, uint64_t seed, const int c[4]);

/* Cosines and sines of random angles, [rows][pairs], for both sides. */
void check_rotation(struct cuda_test *test, int rows, int pairs, const float **cpu_cos,
		    const float **cpu_sin, const float **gpu_cos, const float **gpu_sin);

/* Rotation tables of random angles for both sides. */
struct ropes {
	struct kernel_rope cpu, gpu;
};

struct ropes check_ropes(struct cuda_test *test, int frames, int height, int width, int t, int y,
			 int x);

/* Smallest, odd, one past a tile, of the published model; of gdn and gates the last is the published one. */
extern const struct check_cases {
	const struct linear_case *linear;
	const struct temporal_case *temporal;
	const struct attention_case *attention;
	const struct gdn_case *gdn;
	const int (*gate)[4];
	const struct conv_case *conv;
	int linears, temporals, attentions, gdns, gates, convs;
} check_cases;

/* Times at the published shapes; a GPU is needed. */
void check_linear_times(struct cuda_test *test);
void check_attention_times(struct cuda_test *test);
void check_gdn_times(struct cuda_test *test);

/* Shapes: tests/cuda/simple.c says what their numbers are. */
void check_layer_norm(struct cuda_test *test, uint64_t seed, int rows, int channels);
void check_rms_norm(struct cuda_test *test, uint64_t seed, int rows, int channels,
		    bool with_residual);
void check_qk_norm_rope(struct cuda_test *test, uint64_t seed, const int s[9]);
void check_rope_half(struct cuda_test *test, uint64_t seed, const int s[4]);
void check_rope_shift(struct cuda_test *test, uint64_t seed, const int s[6]);
void check_depthwise_glu(struct cuda_test *test, uint64_t seed, const int s[4]);
void check_text_ops(struct cuda_test *test);
void check_latents(struct cuda_test *test);
void check_channel_affine(struct cuda_test *test);
void check_health(struct cuda_test *test);
void check_pixels(struct cuda_test *test);
