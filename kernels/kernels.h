/*
 * The ops: everything the engine asks of a back end, one declaration and one contract each.
 *
 * A back end is a `static const struct kernel_backend`: a table of the ops below plus memory,
 * queues and events. The engine is written once over this table; the CPU table is the oracle of
 * every other one, op by op.
 *
 * Rules that hold for every op
 *
 *   Layout      Row-major, last dimension fastest. A "token" is one latent pixel, tokens are in
 *               the order (t, y, x): n = (t·h + y)·w + x. Pictures are channels-last [T][H][W][C].
 *               A row stride ("ld…") counts elements of the tensor's own type; 0 is not allowed.
 *   Types       `act` tensors have the back end's activation type (`kernel_backend.activation`,
 *               F32 on the CPU) and are declared `void *`. `float *` is F32 on every back end.
 *   Arithmetic  Sums (matrix products, statistics, softmax) accumulate in F32 or wider. A value is
 *               rounded once, when it is stored. `silu(a) = a / (1 + exp(−a))`,
 *               `sigmoid(a) = 1 / (1 + exp(−a))`, `gelu(a) = ½·a·(1 + tanh(√(2/π)·(a + 0.044715·a³)))`.
 *   Aliasing    Outputs overlap no input unless the contract says "may be the same".
 *   Alignment   Tensors start at multiples of KERNEL_ALIGNMENT bytes; row starts need not.
 *   Workspace   Each parameter block starts with `struct kernel_workspace`. The table's `workspace`
 *               function says how many bytes the op needs for these sizes (it reads sizes, strides
 *               and weight descriptors, never tensor memory). It never shrinks when a size grows, so that
 *               a workspace planned for the largest call serves every smaller one. Contents need
 *               not survive. KERNEL_UNSUPPORTED: these sizes are refused, `run` answers −ENOTSUP.
 *   Execution   An op enqueues on `queue` and returns; it allocates nothing and synchronises nothing.
 *               Of host memory it reads its parameter block and the descriptors that points to
 *               (weights, rotation tables), before it returns. Values that change from pass to pass
 *               (positions, step sizes, noise counters) live in device memory, so that a captured
 *               graph can be launched again with other values.
 *   Results     The same inputs, sizes and thread count give the same bits.
 *   Errors      0, or −EINVAL for sizes outside the contract, −ENOTSUP for a combination this back
 *               end does not have ("unsupported" is an answer, never an abort), −EIO, −EFAULT or −ENODEV
 *               for a device that failed (see `open`). On an error the outputs are unspecified.
 *
 * Dimensions: T frames, H W picture rows and columns, C channels, N tokens, S tokens of one frame,
 * D lanes of one head. "§" refers to docs/model/, one file per network.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KERNEL_ALIGNMENT = 256 };

enum kernel_dtype {
	KERNEL_DTYPE_INVALID = -1,
	KERNEL_F32,
	KERNEL_BF16,
	KERNEL_F16,
	KERNEL_U8,
	KERNEL_DTYPE_COUNT,
};

/* Bytes of one element; 0 for KERNEL_DTYPE_INVALID. */
size_t kernel_dtype_bytes(enum kernel_dtype dtype);

struct kernel_device; /* one opened back end: threads or a GPU; owns nothing the caller allocated */
struct kernel_queue;  /* an ordered sequence of work (a CUDA stream); NULL is never passed */
struct kernel_graph;  /* a captured sequence of ops */
struct kernel_fence;  /* a point of a queue */

struct kernel_workspace {
	void *data;   /* KERNEL_ALIGNMENT aligned; NULL when bytes is 0 */
	size_t bytes; /* at least what `workspace` answered for this block */
};

/* ------------------------------------------------------------------------------------ weights */

/*
 * A matrix weight as the file holds it: [out][in][taps], contiguous, where `taps` flattens the
 * kernel positions of a convolution (27 for 3×3×3 in the order (kt, kh, kw), 3 for the temporal
 * convolution, 1 for a linear layer). Only taps [tap_first, tap_first + tap_count) are used: a
 * softmax block's q and k have three taps in the file of which the centre one counts.
 *
 * `prepared` is what `weight_prepare` made of it (back end's own layout, in memory the caller
 * provided), or NULL: then ops read `data` itself, converting a panel at a time.
 */
struct kernel_weight {
	const void *data; /* host memory (a file mapping) that outlives the weight */
	void *prepared;	  /* device memory, weight_prepare_bytes() long, or NULL */
	enum kernel_dtype dtype;
	int out, in, taps;
	int tap_first, tap_count;
};

/* ------------------------------------------------------------------------------ linear layers */

enum kernel_activation {
	KERNEL_IDENTITY,
	KERNEL_SILU,
	KERNEL_GELU,
	KERNEL_SIGMOID,
	KERNEL_ACTIVATION_COUNT
};

/*
 * v = activation(x·Wᵀ + bias);  y = v, or residual + gate ⊙ v.
 * W [out][tap_count·in] with tap_count = 1; x [N][in]; y [N][out].
 */
struct kernel_linear_part {
	const struct kernel_weight *weight;
	const float *bias; /* [out] or NULL */
	enum kernel_activation activation;
	const void *residual; /* act [N][out], stride ld_residual, or NULL; may be the same as y */
	const float *gate;    /* [out] or NULL (1); only with residual */
	void *y;	      /* act [N][out] (float when y_is_float), stride ldy */
	size_t ld_residual, ldy;
	bool y_is_float;
};

enum { KERNEL_LINEAR_PARTS = 4 };

/* Several layers over one input, so that a back end can read it once. Outputs are disjoint. */
struct kernel_linear {
	struct kernel_workspace workspace;
	const void *x; /* act [N][in], stride ldx */
	size_t ldx;
	int rows; /* N ≥ 1 */
	int parts;
	struct kernel_linear_part part[KERNEL_LINEAR_PARTS];
};

/* y[n] = table[ids[n]] · scale. table: weight [vocabulary][C], taps 1; y act [N][C]. 0 ≤ id < out. */
struct kernel_embedding {
	struct kernel_workspace workspace;
	const struct kernel_weight *table;
	const int32_t *ids; /* [N] device memory */
	float scale;
	void *y;
	int rows;
};

/* ---------------------------------------------------------------------------------------- norms */

/*
 * y = LN(x)·(1 + scale) + shift, LN without weights, statistics over C in F32 (biased variance).
 * x, y act [N][C]; scale, shift [C]. May be the same: x and y. (dit §4.1)
 */
struct kernel_layer_norm_modulate {
	struct kernel_workspace workspace;
	const void *x;
	const float *scale, *shift;
	void *y;
	float epsilon;
	int rows, channels;
};

/*
 * y = residual + x·rsqrt(mean_C(x²) + ε)·(weight_offset + weight).
 * x, y, residual act [N][C]; residual NULL means 0 and may be the same as y, as may x.
 * weight_offset is 1 in the text encoder and 0 in the DiT.
 */
struct kernel_rms_norm {
	struct kernel_workspace workspace;
	const void *x;
	const void *residual;
	const float *weight;
	void *y;
	float weight_offset, epsilon;
	int rows, channels;
};

/*
 * Rotation tables of one call. Lane pairs are adjacent, (2i, 2i+1), in the order t, y, x:
 * pairs_t + pairs_y + pairs_x = D/2. Row f of cos_t belongs to frame f of the call. (dit §5)
 */
struct kernel_rope {
	const float *cos_t, *sin_t; /* [T][pairs_t] */
	const float *cos_y, *sin_y; /* [h][pairs_y] */
	const float *cos_x, *sin_x; /* [w][pairs_x] */
	int frames, height, width;  /* tokens = frames·height·width */
	int pairs_t, pairs_y, pairs_x;
};

/*
 * x ← RoPE(x·rsqrt(mean_C(x²) + ε)·weight): the norm is over all C = heads·D channels, the rotation
 * per head. In place; x act [N][C], stride ldx. rope NULL: no rotation. (dit §4.5, §4.6)
 */
struct kernel_qk_norm_rope {
	struct kernel_workspace workspace;
	void *x;
	size_t ldx;
	const float *weight; /* [C] */
	const struct kernel_rope *rope;
	float epsilon;
	int rows, heads, head_dim;
};

/*
 * Rotates pairs (i, i + D/2) of each head: y[i] = x[i]·cos − x[i+D/2]·sin,
 * y[i+D/2] = x[i+D/2]·cos + x[i]·sin. In place; x act [N][heads·D], stride ldx;
 * cos, sin [N][D/2]. (text-encoder §3)
 */
struct kernel_rope_half {
	struct kernel_workspace workspace;
	void *x;
	size_t ldx;
	const float *cos, *sin;
	int rows, heads, head_dim;
};

/*
 * Turns the first 2·pairs lanes of each head by one rotation for all rows: pair i by (cos[i], sin[i]).
 * x [rows][heads·D] of type `is_float ? F32 : act`, y likewise (may be the same as x); lanes that
 * are not turned are copied, so pairs = 0 (cos, sin then unused) is a conversion of types.
 * Exact re-basing of positions: keys, and the key axis of a GDN state (rows = heads·Dv, heads = 1).
 * (streaming §8)
 */
struct kernel_rope_shift {
	struct kernel_workspace workspace;
	const void *x;
	void *y;
	const float *cos, *sin; /* [pairs] */
	bool x_is_float, y_is_float;
	size_t rows;
	int heads, head_dim, pairs;
};

/* ------------------------------------------------------------------------------------ attention */

/*
 * GDN gates of T frames of S tokens (dit §4.2.5–6):
 *   beta[n][head] = sigmoid(W_beta·u_n + b_beta)
 *   decay[t][head] = exp(−exp(A_log)·softplus(W_decay·mean_S(u_t) + b_decay + dt_bias)),
 * softplus(a) = a for a > 20. u act [T·S][C].
 */
struct kernel_gdn_gates {
	struct kernel_workspace workspace;
	const void *u;
	const struct kernel_weight *weight_beta, *weight_decay; /* [heads][C] */
	const float *bias_beta, *bias_decay, *a_log, *dt_bias;	/* [heads] */
	float *beta;						/* [T·S][heads] */
	float *decay;						/* [T][heads] */
	int frames, tokens_per_frame, channels, heads;
};

/*
 * Gated delta rule over the frames of one chunk, both directions (dit §4.2–4.3).
 * With q, k = relu(RMSNorm_C(·)·w), k also times κ = D^−½·S^−½, hats meaning RoPE, Λ = diag(beta),
 * per frame t and head: P = K̂ᵀΛK̂, A = VᵀΛK̂, P_z = KᵀΛK, b = Kᵀbeta,
 *   forward   M_t = g_t·M_{t−1}(I − P_t) + A_t,  z_t = g_t·(I − P_z,t) z_{t−1} + b_t from state_in,
 *   reverse   M^r_t = g_{t+1}·M^r_{t+1}(I − P_{t+1}) + A_{t+1}, z^r likewise, M^r_{T−1} = 0,
 *   o = Q̂(M_t + M^r_t)ᵀ / (Q(z_t + z^r_t) + 1e−8),   y = o ⊙ silu(gate).
 * M [heads][Dv][Dk] and z [heads][Dk] are F32. The scan (M, z, P, A) is held in F32.
 * q, k, v, gate, y act [N][C], row stride ld for q, k, v, gate and C for y; y may be the same as gate
 * when ld is C. state_in NULL means zero; state_out (both or none) receives M, z after the last frame
 * and may be the same as state_in. q, k, v are scratch to the op: their contents are lost.
 */
struct kernel_gdn {
	struct kernel_workspace workspace;
	void *q, *k, *v;
	const void *gate;
	size_t ld;
	const float *q_norm, *k_norm; /* [C] */
	const float *beta, *decay;    /* as written by gdn_gates */
	const struct kernel_rope *rope;
	const float *state_in, *normaliser_in;
	float *state_out, *normaliser_out;
	void *y;
	float epsilon; /* of the q and k norms */
	int heads, head_dim;
};

struct kernel_segment {
	const void *k, *v; /* act [tokens][kv_heads·D], row stride ld */
	size_t ld;
	int tokens;
};

enum { KERNEL_SEGMENTS = 3 };

/*
 * y = softmax(cap(scale·q·kᵀ) + mask)·v, per head, keys being the segments one after another;
 * softmax in F32. cap(s) = softcap·tanh(s/softcap) when softcap > 0, else s.
 * Query row i has position query_offset + i, key j position j:
 *   causal: key j counts when j ≤ position; window w > 0: only when position − j < w;
 *   key_mask (uint8 [keys] or NULL): only where it is not 0. A query without keys gives 0.
 * Head h reads key/value head h / (heads / kv_heads). y ← y ⊙ silu(gate) when gate is given.
 * q, gate, y act [rows][heads·D], strides ldq, ldg, ldy; y may be the same as q or gate.
 * (dit §4.5, §4.6; text-encoder §3)
 */
struct kernel_attention {
	struct kernel_workspace workspace;
	const void *q, *gate;
	void *y;
	size_t ldq, ldg, ldy;
	struct kernel_segment segment[KERNEL_SEGMENTS];
	int segments;
	int rows, heads, kv_heads, head_dim;
	float scale, softcap;
	bool causal;
	int window, query_offset;
	const uint8_t *key_mask;
};

/* ------------------------------------------------------------------------------------- MixFFN */

/*
 * d = depthwise3×3(a) + bias, zero padding inside each frame; y = d[0:F] ⊙ silu(d[F:2F]).
 * a act [T][h][w][2F]; weight [9][2F] (position (ky, kx) slowest); y act [T·h·w][F]. (dit §4.7.2–3)
 */
struct kernel_depthwise_glu {
	struct kernel_workspace workspace;
	const void *a;
	const float *weight, *bias;
	void *y;
	int frames, height, width, features; /* F */
};

/*
 * x_t ← x_t + gate ⊙ (r_t + W₀·r_{t−1} + W₁·r_t + W₂·r_{t+1}), r_T = 0, r_{−1} = left or 0 when NULL.
 * left_out (or NULL) ← r_{T−1}; it may be the same as left. weight: 3 taps [C][C][3], no bias.
 * x, r act [T·S][C]; left, left_out act [S][C]; gate [C] or NULL (1). x receives the residual in
 * place. (dit §4.7.5–6)
 */
struct kernel_temporal_conv {
	struct kernel_workspace workspace;
	void *x;
	const void *r, *left;
	void *left_out;
	const struct kernel_weight *weight;
	const float *gate;
	int frames, tokens_per_frame, channels;
};

/* y = gelu(gate) ⊙ up; gate, up, y act [rows][columns], contiguous; y may be the same as either. */
struct kernel_glu_gelu {
	struct kernel_workspace workspace;
	const void *gate, *up;
	void *y;
	int rows, columns;
};

/* ------------------------------------------------------------------------- latents and sampler */

/* y[n] = [a[n] ; b[n]] with conversion: a [N][Ca], b [N][Cb] F32; y act [N][Ca + Cb]. */
struct kernel_concat {
	struct kernel_workspace workspace;
	const float *a, *b;
	void *y;
	int rows, channels_a, channels_b;
};

/* x ← x + step·v; x F32 [n]; v act [n]; step: one float in device memory. (streaming §3) */
struct kernel_euler_step {
	struct kernel_workspace workspace;
	float *x;
	const void *v;
	const float *step;
	size_t count;
};

/*
 * Standard normal noise, a pure function of (seed, frame, channel, y, x): Philox4x32-10 with
 * key = {seed low, seed high} and counter = {y·2¹⁶ + x, channel, frame low, frame high} gives
 * w₀…w₃; value = √(−2·ln((w₀ + 1)·2⁻³²))·cos(2π·w₁·2⁻³²), computed in FP64, stored as F32.
 * y [T][h][w][C], frames *first_frame … *first_frame + T − 1. h, w ≤ 65536.
 */
struct kernel_noise {
	struct kernel_workspace workspace;
	float *y;
	const uint64_t *seed;	     /* device memory, one value */
	const uint64_t *first_frame; /* device memory, one value */
	int frames, height, width, channels;
};

enum { KERNEL_HEALTH_NON_FINITE = 1, KERNEL_HEALTH_TOO_LARGE = 2 };

/* *flags |= NON_FINITE where x holds NaN or ±inf, TOO_LARGE where |x| > limit. x act or F32 [count]. */
struct kernel_health {
	struct kernel_workspace workspace;
	const void *x;
	bool x_is_float;
	size_t count;
	float limit;
	uint32_t *flags; /* device memory, one value */
};

/* y[n][c] = x[n][c]·scale[c] + shift[c]; x, y act or F32 [rows][C]; may be the same. (vae §4.7, §5.1) */
struct kernel_channel_affine {
	struct kernel_workspace workspace;
	const void *x;
	void *y;
	bool x_is_float, y_is_float;
	const float *scale, *shift;
	size_t rows, ldx; /* x may have more channels than are read */
	int channels;
};

/* ----------------------------------------------------------------------------------------- VAE */

enum kernel_padding { KERNEL_PAD_ZERO, KERNEL_PAD_REFLECT, KERNEL_PADDING_COUNT };
enum kernel_resample {
	KERNEL_RESAMPLE_NONE,
	KERNEL_SPACE_TO_DEPTH, /* down-sampler, vae §3.5 */
	KERNEL_DEPTH_TO_SPACE, /* up-sampler, vae §3.6 */
	KERNEL_RESAMPLE_COUNT,
};

/*
 * 3×3×3 convolution over [T][H][W][Cin], stride 1 (vae §3.3):
 *   c[k][t,h,w] = bias[k] + Σ W[k,i,a,b,c']·X(i, t+a−2, h+b−1, w+c'−1)         (causal)
 * Time: frames −2, −1 come from `context` (act [2][H][W][Cin]). With context_set false it is not read
 * and both are copies of the input's first frame. After the reads, context ← the last two frames of
 * concat(context, x). context NULL: whole clip, not causal, taps t−1…t+1 with the first and last
 * frame repeated once. Space: zeros, or reflection without repeating the edge (needs H, W ≥ 2).
 *
 * Output by `resample`, with stride (st, sh, sw), P = st·sh·sw, q = (i·sh + j)·sw + k:
 *   NONE            y[o] = c[o] + residual[o] (residual act [T][H][W][Cout] or NULL; may be y)
 *   SPACE_TO_DEPTH  T, H, W multiples of the stride; the convolution makes K = Cout/P channels,
 *                   G = Cin·P/Cout whole; S(a)[m] = a[m / P] at phase q = m mod P;
 *                   y[o][T/st, H/sh, W/sw] = S(c)[o] + mean_{e<G} S(x)[o·G + e]
 *   DEPTH_TO_SPACE  the convolution makes Cout·P channels, (Cin/P)·tile = Cout, tile whole;
 *                   y[o][st·t+i][sh·h+j][sw·w+k] = c[o·P + q] + x[(o mod Cin/P)·P + q];
 *                   drop_first_frame: output frame 0 is not made, y starts with frame 1
 * `cout` is Cout. The weight may have more rows than the convolution makes: the first ones count.
 * y act or NULL; y_norm act or NULL: silu(y / sqrt(mean_Cout(y²) + 1e−8)) of the value before
 * rounding, or, where a back end makes the channels of a pixel in several places, of y as stored
 * (vae §3.2). x, y, y_norm are distinct; residual may be the same as y.
 */
struct kernel_conv3d {
	struct kernel_workspace workspace;
	const void *x;
	void *context;
	bool context_set;
	const struct kernel_weight *weight; /* 27 taps */
	const float *bias;
	const void *residual;
	void *y, *y_norm;
	enum kernel_padding padding;
	enum kernel_resample resample;
	int stride_t, stride_h, stride_w; /* each 1 or 2; read when resample is not NONE */
	bool drop_first_frame;
	int frames, height, width, cin, cout;
};

/*
 * Pixels → patches: y[t][H/p][W/p][(c·p + pw)·p + ph] = x[t][h·p + ph][w·p + pw][c] (vae §3.1).
 * x: u8 RGB with row stride `row_bytes` and frame stride `frame_bytes`, mapped to v·(2/255) − 1, or
 * (pixels_are_float) F32 taken as it is, strides in bytes too. y act.
 */
struct kernel_patchify {
	struct kernel_workspace workspace;
	const void *pixels;
	bool pixels_are_float;
	size_t row_bytes, frame_bytes;
	void *y;
	int frames, height, width, channels, patch; /* height, width in pixels */
};

enum kernel_rounding { KERNEL_ROUND_NEAREST, KERNEL_ROUND_TRUNCATE };

/* The inverse. To u8: clamp(127.5·x + 127.5, 0, 255) rounded as asked (color §1.3). x act. */
struct kernel_unpatchify {
	struct kernel_workspace workspace;
	const void *x;
	void *pixels;
	bool pixels_are_float;
	enum kernel_rounding rounding;
	size_t row_bytes, frame_bytes;
	int frames, height, width, channels, patch;
};

/* -------------------------------------------------------------------------------------- table */

/* X(name): one op each; parameter block `struct kernel_name`, index KERNEL_OP_name. */
#define KERNEL_OPS(X)          \
	X(linear)              \
	X(embedding)           \
	X(layer_norm_modulate) \
	X(rms_norm)            \
	X(qk_norm_rope)        \
	X(rope_half)           \
	X(rope_shift)          \
	X(gdn_gates)           \
	X(gdn)                 \
	X(attention)           \
	X(depthwise_glu)       \
	X(temporal_conv)       \
	X(glu_gelu)            \
	X(concat)              \
	X(euler_step)          \
	X(noise)               \
	X(health)              \
	X(channel_affine)      \
	X(conv3d)              \
	X(patchify)            \
	X(unpatchify)

enum kernel_op {
#define X(name) KERNEL_OP_##name,
	KERNEL_OPS(X)
#undef X
		KERNEL_OP_COUNT,
};

/* "linear", "gdn", …; "?" for a value outside the enum. */
const char *kernel_op_name(enum kernel_op op);

/* Bytes of the parameter block of an op: a recorder can keep copies of them. */
size_t kernel_op_params_bytes(enum kernel_op op);

enum { KERNEL_TIMER_SLOTS = 4096 };

struct kernel_device_options {
	int threads;	  /* CPU: worker threads, 0 = one per online core, at most 256 */
	int device_index; /* GPU: which one */
	bool portable;	  /* GPU: without the kernels that only one generation of chips runs */
	/*
	 * GPU: kernels are chosen by rule alone, never by measuring, so that every process gets the same
	 * bits. The CPU back end always does.
	 */
	bool deterministic;
	const char *
		tuning_directory; /* GPU: where measured choices are kept, or NULL; read at opening */
};

enum { KERNEL_TUNING_LINES = 64 };

/* One op whose ways were measured, milliseconds. */
struct kernel_tuning_line {
	char shape[64];				  /* "2240 of 6720, 2640 rows" */
	char estimated[48], own[48], library[64]; /* kernels; library "": none offered */
	double estimated_ms, own_ms, library_ms;  /* of the first two, of 0 where there is none */
	int chosen;				  /* 0: estimated, 1: own, 2: library */
};

/* What measuring came to, on this device so far. */
struct kernel_tuning {
	int measured, known, left; /* ops measured, taken from the file, left to an estimate */
	int library;		   /* of them made by a matrix library */
	double seconds;
	char text[256]; /* a sentence for people; "": nothing was there to choose */
	char note[256]; /* what is amiss with the file; "": nothing */
	int lines;
	struct kernel_tuning_line line[KERNEL_TUNING_LINES];
};

/* What a device is, for reports. */
struct kernel_facts {
	char name[96], pci[20]; /* "0000:3b:00.0" */
	int driver_version;	/* 13000: CUDA 13.0 */
	int capability;		/* 90, 120, 121 */
	int multiprocessors, clock_khz, l2_bytes, shared_bytes;
};

typedef int (*kernel_run_function)(struct kernel_device *, const void *params,
				   struct kernel_queue *);
typedef size_t (*kernel_workspace_function)(const struct kernel_device *, const void *params);
#define KERNEL_UNSUPPORTED SIZE_MAX /* instead of a workspace's bytes */

struct kernel_backend {
	const char *name;
	const char *description;
	enum kernel_dtype activation;

	/*
	 * Ops read weights from device memory alone: each must be prepared before an op uses it. Else a
	 * weight may also be read where it is (`kernel_weight.data`).
	 */
	bool weights_on_device;

	/*
	 * Opens the device; on failure `text` (text_bytes long, may be NULL) holds one sentence: −ENODEV no
	 * driver or no device, −EPROTO the driver is too old, −ENOEXEC no code for this device, −ENOTSUP not
	 * built in, −ENOMEM. Later, −EFAULT is a kernel that failed and −ENODEV a device that was lost: after
	 * either nothing works on this device any more. It is to be closed; whether this process may open it
	 * again is the driver's to say (CUDA's: not after −EFAULT).
	 */
	int (*open)(const struct kernel_device_options *, char *text, size_t text_bytes,
		    struct kernel_device **ret);
	void (*close)(struct kernel_device *); /* NULL is fine */

	/* Device memory, KERNEL_ALIGNMENT aligned and zeroed; −ENOMEM. Released exactly once. */
	int (*allocate)(struct kernel_device *, size_t bytes, void **ret);
	void (*release)(struct kernel_device *, void *memory, size_t bytes);
	/* Bytes that an allocation may hope for; 0: nobody knows. */
	size_t (*memory_available)(struct kernel_device *);

	/*
	 * Host memory that copies reach without a detour, for buffers copied often; both NULL where any host
	 * memory serves as well.
	 */
	int (*host_allocate)(struct kernel_device *, size_t bytes, void **ret);
	void (*host_release)(struct kernel_device *, void *memory);

	int (*queue_create)(struct kernel_device *, int priority, struct kernel_queue **ret);
	void (*queue_destroy)(struct kernel_device *, struct kernel_queue *);
	int (*queue_wait)(struct kernel_device *,
			  struct kernel_queue *); /* until all of it is done */
	int (*queue_after)(struct kernel_device *, struct kernel_queue *,
			   struct kernel_queue *first);

	/*
	 * Points of queues; NULL in a back end whose ops are done when they return; one that has them has
	 * host_allocate too. fence_set: the fence stands for all that was enqueued so far. fence_wait sleeps
	 * until the queue has passed it; fence_passed: 1 when it has, 0 not yet, or what failed. fence_ns:
	 * nanoseconds between two fences that were passed.
	 */
	int (*fence_create)(struct kernel_device *, struct kernel_fence **ret);
	void (*fence_destroy)(struct kernel_device *, struct kernel_fence *);
	int (*fence_set)(struct kernel_device *, struct kernel_fence *, struct kernel_queue *);
	int (*fence_wait)(struct kernel_device *, struct kernel_fence *);
	int (*fence_passed)(struct kernel_device *, struct kernel_fence *);
	int (*fence_ns)(struct kernel_device *, struct kernel_fence *first,
			struct kernel_fence *second, int64_t *ret_ns);

	/* Ordered on the queue. Host memory must stay valid until the queue has passed the copy. */
	int (*upload)(struct kernel_device *, void *to, const void *host, size_t bytes,
		      struct kernel_queue *);
	int (*download)(struct kernel_device *, void *host, const void *from, size_t bytes,
			struct kernel_queue *);
	int (*copy)(struct kernel_device *, void *to, const void *from, size_t bytes,
		    struct kernel_queue *);
	int (*zero)(struct kernel_device *, void *to, size_t bytes, struct kernel_queue *);

	/*
	 * Capture: ops between begin and end are recorded instead of run; launch enqueues them again
	 * with the same parameter blocks. NULL in a back end without graphs.
	 */
	int (*graph_begin)(struct kernel_device *, struct kernel_queue *);
	int (*graph_end)(struct kernel_device *, struct kernel_queue *, struct kernel_graph **ret);
	int (*graph_launch)(struct kernel_device *, struct kernel_graph *, struct kernel_queue *);
	void (*graph_destroy)(struct kernel_device *, struct kernel_graph *);

	/*
	 * A weight in the back end's own layout. `weight_prepare_bytes` may answer 0: this back end
	 * reads the weight where it is. On the CPU: F32, [out][tap_count][in].
	 */
	size_t (*weight_prepare_bytes)(const struct kernel_device *, const struct kernel_weight *);
	int (*weight_prepare)(struct kernel_device *, struct kernel_weight *, void *memory,
			      struct kernel_queue *);

	/*
	 * Measuring, NULL in a back end that does not have it. Marks are points of a queue, slots from 0
	 * to KERNEL_TIMER_SLOTS − 1; after queue_wait the nanoseconds between two of them can be read.
	 * kernels_used names what the last call of an op ran, "a+b"; it lives until the next call.
	 */
	int (*timer_mark)(struct kernel_device *, int slot, struct kernel_queue *);
	int (*timer_read)(struct kernel_device *, int first, int second, int64_t *ret_ns);
	const char *(*kernels_used)(struct kernel_device *, enum kernel_op);
	void (*facts)(struct kernel_device *, struct kernel_facts *ret);

	/*
	 * Enqueues products of matrices that never leave the registers: the most its matrix units can do.
	 * NULL in a back end without such units.
	 */
	int (*tensor_peak)(struct kernel_device *, struct kernel_queue *, double *ret_flops);

	/*
	 * Measures which way of running this op with these parameters is fastest here, and remembers it for
	 * later runs; nothing for most ops. Its activations, inputs too, are overwritten. It may allocate and
	 * wait, so it comes before anything is recorded. `tuned` ends it: keeps what was found and says what it
	 * was. NULL in a back end without choices.
	 */
	int (*tune)(struct kernel_device *, enum kernel_op, const void *params,
		    struct kernel_queue *);
	void (*tuned)(struct kernel_device *, struct kernel_tuning *ret);

	kernel_workspace_function workspace[KERNEL_OP_COUNT]; /* NULL entry: 0 bytes */
	kernel_run_function run[KERNEL_OP_COUNT];
};

/*
 * One GPU, BF16: kernels for sm_90 and the sm_120 family, libcuda opened at run time. Opening it fails
 * with a sentence where there is no driver, no GPU, or where the program was built without CUDA.
 */
extern const struct kernel_backend kernel_backend_cuda;

/* The oracle: F32, plain loops, OpenMP, GEMM and convolution through a BLAS. */
extern const struct kernel_backend kernel_backend_cpu;
