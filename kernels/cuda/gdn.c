/* Launchers of the gated delta rule. */
#include "kernels/cuda/gdn.h"

#include <math.h>

#include "kernels/cuda/device.h"

/* Rotations of the published sizes and of pictures of up to 70 by 70 latents beside the largest head. */
_Static_assert(GDN_SUMS_TILES(112) + GDN_TURNS(20, 18, 18, 70, 70) <= CUDA_PORTABLE_SHARED &&
		       GDN_SCAN_SHARED(112) <= CUDA_PORTABLE_SHARED &&
		       GDN_READ_STATE(112) + GDN_TURNS(20, 18, 18, 70, 70) <= CUDA_PORTABLE_SHARED,
	       "the largest head");

/* What is read 16 bytes at a time. */
static bool aligned(const void *p, size_t ld)
{
	return (uintptr_t)p % 16 == 0 && ld % 8 == 0;
}

/* ---------------------------------------------------------------------------------------- gates */

size_t cuda_workspace_gdn_gates(const struct kernel_device *device, const void *params)
{
	const struct kernel_gdn_gates *op = params;
	const size_t frames = (size_t)op->frames, tokens = (size_t)op->tokens_per_frame;
	const size_t parts = (tokens + GDN_GATE_ROWS(op->heads) - 1) / GDN_GATE_ROWS(op->heads) *
			     (size_t)op->heads;
	size_t used = 0;

	(void)device;
	(void)cuda_reserve(&used,
			   sizeof(float) * frames *
				   (parts > (size_t)op->channels ? parts : (size_t)op->channels));
	return used;
}

static bool gate_fits(const struct kernel_gdn_gates *op, const struct kernel_weight *w)
{
	return w->prepared && w->tap_count == 1 && w->out == op->heads && w->in == op->channels;
}

int cuda_run_gdn_gates(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_gdn_gates *op = params;
	const int tokens = op->frames * op->tokens_per_frame;
	static const enum cuda_kernel by_heads[GDN_GATE_HEADS / 8] = { CUDA_KERNEL_gdn_gates_8,
								       CUDA_KERNEL_gdn_gates_16,
								       CUDA_KERNEL_gdn_gates_24,
								       CUDA_KERNEL_gdn_gates_32 };
	const struct gdn_gates_params p = {
		.u = op->u,
		.weight_beta = op->weight_beta->prepared,
		.weight_decay = op->weight_decay->prepared,
		.bias_beta = op->bias_beta,
		.bias_decay = op->bias_decay,
		.a_log = op->a_log,
		.dt_bias = op->dt_bias,
		.beta = op->beta,
		.decay = op->decay,
		.mean = op->workspace.data,
		.frames = op->frames,
		.tokens = op->tokens_per_frame,
		.channels = op->channels,
		.heads = op->heads,
	};
	/* A lane reads its own eight of 32 channels. */
	const bool matrix = op->heads <= GDN_GATE_HEADS && op->channels % 8 == 0 &&
			    op->channels >= 32 && aligned(op->u, 8) && aligned(p.weight_beta, 8) &&
			    aligned(p.weight_decay, 8);
	struct cuda_launch launch = { .params = &p, .block = { GDN_GATE_THREADS } };
	int r;

	if (op->frames < 1 || op->tokens_per_frame < 1 || op->channels < 1 || op->heads < 1 ||
	    !gate_fits(op, op->weight_beta) || !gate_fits(op, op->weight_decay) ||
	    op->workspace.bytes < cuda_workspace_gdn_gates(device, params))
		return -EINVAL;
	if (matrix) {
		launch.kernel = by_heads[(op->heads - 1) / 8];
		launch.dependent = true;
		launch.grid[0] =
			cuda_blocks((size_t)op->tokens_per_frame, GDN_GATE_ROWS(op->heads));
		launch.grid[1] = (unsigned int)op->frames;
		r = cuda_launch(device, queue, &launch);
		launch.kernel = CUDA_KERNEL_gdn_decay;
		launch.grid[1] = 1;
	} else {
		launch.kernel = CUDA_KERNEL_gdn_mean_any;
		launch.grid[0] = cuda_blocks((size_t)op->channels, GDN_MEAN_CHANNELS);
		launch.grid[1] = (unsigned int)op->frames;
		r = cuda_launch(device, queue, &launch);
		launch.kernel = CUDA_KERNEL_gdn_beta_any;
		launch.grid[0] = cuda_blocks((size_t)tokens, GDN_GATE_TOKENS);
		launch.grid[1] = 1;
		if (r >= 0)
			r = cuda_launch(device, queue, &launch);
		launch.kernel = CUDA_KERNEL_gdn_decay_any;
	}
	launch.grid[0] = (unsigned int)(op->frames * op->heads);
	launch.block[0] = 32;
	return r < 0 ? r : cuda_launch(device, queue, &launch);
}

/* ----------------------------------------------------------------------------------- delta rule */

struct gdn_plan {
	size_t meetings, inverse, p, a, p_z, b, history, read, z, bytes;
};

static struct gdn_plan plan_of(const struct kernel_gdn *op)
{
	const size_t d = (size_t)op->head_dim;
	const size_t items = (size_t)op->rope->frames * (size_t)op->heads, matrix = d * d;
	const size_t rows =
		(size_t)op->rope->frames * (size_t)op->rope->height * (size_t)op->rope->width;
	struct gdn_plan plan = { 0 };

	plan.meetings = cuda_reserve(&plan.bytes, items * sizeof(int[2]));
	plan.inverse = cuda_reserve(&plan.bytes, 2 * rows * sizeof(float));
	plan.p = cuda_reserve(&plan.bytes, items * matrix * sizeof(float));
	plan.a = cuda_reserve(&plan.bytes, items * matrix * sizeof(float));
	plan.p_z = cuda_reserve(&plan.bytes, items * matrix * sizeof(float));
	plan.b = cuda_reserve(&plan.bytes, items * d * sizeof(float));
	plan.history = cuda_reserve(&plan.bytes, items * matrix * sizeof(float));
	plan.read = cuda_reserve(&plan.bytes, items * matrix * sizeof(uint16_t));
	plan.z = cuda_reserve(&plan.bytes, items * d * sizeof(float));
	return plan;
}

/* Of the queries of a block of the plain read-out. */
static int64_t any_read_bytes(int head_dim)
{
	return (int64_t)sizeof(float) * GDN_ANY_QUERIES * head_dim;
}

static bool head_fits(const struct kernel_device *device, const struct kernel_gdn *op)
{
	return any_read_bytes(op->head_dim) <= device->function_shared[CUDA_KERNEL_gdn_any_read];
}

size_t cuda_workspace_gdn(const struct kernel_device *device, const void *params)
{
	return head_fits(device, params) ? plan_of(params).bytes : KERNEL_UNSUPPORTED;
}

struct gdn_kernels {
	int head_dim;
	enum cuda_kernel sums, scan, read;
};

static const struct gdn_kernels *kernels_of(int head_dim)
{
	static const struct gdn_kernels all[] = {
		{ 32, CUDA_KERNEL_gdn_sums_32, CUDA_KERNEL_gdn_scan_32, CUDA_KERNEL_gdn_read_32 },
		{ 80, CUDA_KERNEL_gdn_sums_80, CUDA_KERNEL_gdn_scan_80, CUDA_KERNEL_gdn_read_80 },
		{ 112, CUDA_KERNEL_gdn_sums_112, CUDA_KERNEL_gdn_scan_112,
		  CUDA_KERNEL_gdn_read_112 },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].head_dim == head_dim)
			return &all[i];
	return NULL;
}

static size_t turns_bytes(const struct kernel_rope *rope)
{
	return GDN_TURNS(rope->pairs_t, rope->pairs_y, rope->pairs_x, (size_t)rope->height,
			 (size_t)rope->width);
}

static bool valid(const struct kernel_gdn *op, const struct gdn_plan *plan)
{
	const struct kernel_rope *rope = op->rope;
	const size_t channels = (size_t)op->heads * (size_t)op->head_dim;

	return op->heads > 0 && op->head_dim > 0 && rope->frames > 0 && rope->height > 0 &&
	       rope->width > 0 && rope->pairs_t >= 0 && rope->pairs_y >= 0 && rope->pairs_x >= 0 &&
	       2 * (rope->pairs_t + rope->pairs_y + rope->pairs_x) == op->head_dim &&
	       op->ld >= channels && !op->state_in == !op->normaliser_in &&
	       !op->state_out == !op->normaliser_out && op->workspace.bytes >= plan->bytes;
}

/* The kernels for this head, or NULL where they cannot be used: those of gdn_any.cu do it then. */
static const struct gdn_kernels *fast_kernels(const struct kernel_device *device,
					      const struct kernel_gdn *op)
{
	const struct kernel_rope *rope = op->rope;
	const struct gdn_kernels *kernels = kernels_of(op->head_dim);
	const size_t d = (size_t)op->head_dim;

	/* Blocks of the sums wait for each other by twos (gdn_sums.cu): two have to run at once. */
	if (!kernels || device->properties.multiprocessors < 2)
		return NULL;
	/* A lane of the widest heads turns two neighbouring pairs, of one axis. */
	if (d == 112 && (rope->pairs_t % 2 || rope->pairs_y % 2 || rope->pairs_x % 2))
		return NULL;
	/* Rotations lie in shared memory; the read-out counts elements in 32 bits. */
	if (GDN_SUMS_TILES(d) + turns_bytes(rope) >
		    (size_t)device->function_shared[kernels->sums] ||
	    (size_t)rope->frames * (size_t)rope->height * (size_t)rope->width * op->ld > INT32_MAX)
		return NULL;
	if (!aligned(op->q, op->ld) || !aligned(op->k, op->ld) || !aligned(op->v, op->ld) ||
	    !aligned(op->gate, op->ld) || !aligned(op->y, 8) || !aligned(op->q_norm, 8) ||
	    !aligned(op->k_norm, 8) || !aligned(op->state_in, 8) || !aligned(op->state_out, 8))
		return NULL;
	return kernels;
}

static void params_fill(const struct kernel_gdn *op, const struct gdn_plan *plan,
			struct gdn_params *p)
{
	const struct kernel_rope *rope = op->rope;
	const int tokens = rope->height * rope->width;

	*p = (struct gdn_params){
		.q = op->q,
		.k = op->k,
		.v = op->v,
		.gate = op->gate,
		.ld = op->ld,
		.q_norm = op->q_norm,
		.k_norm = op->k_norm,
		.beta = op->beta,
		.decay = op->decay,
		.rope = { rope->cos_t, rope->sin_t, rope->cos_y, rope->sin_y, rope->cos_x,
			  rope->sin_x, rope->height, rope->width, rope->pairs_t, rope->pairs_y,
			  rope->pairs_x },
		.state_in = op->state_in,
		.normaliser_in = op->normaliser_in,
		.state_out = op->state_out,
		.normaliser_out = op->normaliser_out,
		.y = op->y,
		.epsilon = op->epsilon,
		.kappa = (float)(1.0 / sqrt((double)op->head_dim * tokens)),
		.inverse_width = 1.0f / (float)rope->width,
		.frames = rope->frames,
		.tokens = tokens,
		.heads = op->heads,
		.head_dim = op->head_dim,
		.meetings = cuda_at(&op->workspace, plan->meetings),
		.inverse = cuda_at(&op->workspace, plan->inverse),
		.p = cuda_at(&op->workspace, plan->p),
		.a = cuda_at(&op->workspace, plan->a),
		.p_z = cuda_at(&op->workspace, plan->p_z),
		.b = cuda_at(&op->workspace, plan->b),
		.history = cuda_at(&op->workspace, plan->history),
		.read = cuda_at(&op->workspace, plan->read),
		.z = cuda_at(&op->workspace, plan->z),
	};
}

enum { PHASES = 4 }; /* norms, sums, scan, read-out */

static int launch_all(struct kernel_device *device, struct kernel_queue *queue,
		      const struct cuda_launch phases[PHASES])
{
	int r = 0;

	for (int i = 0; i < PHASES && r >= 0; i++)
		r = cuda_launch(device, queue, &phases[i]);
	return r;
}

static int run_fast(struct kernel_device *device, struct kernel_queue *queue,
		    const struct gdn_kernels *kernels, const struct gdn_params *p,
		    unsigned int turns)
{
	const unsigned int d = (unsigned int)p->head_dim, heads = (unsigned int)p->heads;
	const unsigned int frames = (unsigned int)p->frames;
	const size_t tokens = (size_t)p->tokens;

	return launch_all(
		device, queue,
		(const struct cuda_launch[PHASES]){
			{ .kernel = CUDA_KERNEL_gdn_inverse,
			  .grid = { cuda_blocks(32 * frames * tokens, GDN_INVERSE_THREADS) },
			  .block = { GDN_INVERSE_THREADS },
			  .params = p,
			  .dependent = true },
			{ .kernel = kernels->sums,
			  .grid = { 2 * heads * frames +
				    cuda_blocks(frames * tokens, GDN_SUMS_QUERIES) },
			  .block = { GDN_SUMS_THREADS(d) },
			  .shared_bytes = GDN_SUMS_TILES(d) + turns,
			  .params = p,
			  .dependent = true },
			{ .kernel = kernels->scan,
			  .grid = { (d / GDN_SCAN_ROWS + 1) * heads },
			  .block = { 2 * d },
			  .shared_bytes = GDN_SCAN_SHARED(d),
			  .params = p,
			  .dependent = true },
			{ .kernel = kernels->read,
			  .grid = { cuda_blocks(tokens, 16 * GDN_READ_TILES), heads, frames },
			  .block = { 32 * GDN_READ_WARPS },
			  .shared_bytes = GDN_READ_STATE(d) + turns,
			  .params = p,
			  .dependent = true },
		});
}

static int run_any(struct kernel_device *device, struct kernel_queue *queue,
		   const struct gdn_params *p)
{
	const unsigned int d = (unsigned int)p->head_dim, heads = (unsigned int)p->heads;
	const unsigned int frames = (unsigned int)p->frames;
	const size_t tokens = (size_t)p->tokens;

	return launch_all(device, queue,
			  (const struct cuda_launch[PHASES]){
				  { .kernel = CUDA_KERNEL_gdn_any_inverse,
				    .grid = { cuda_blocks(64 * frames * tokens, GDN_ANY_THREADS) },
				    .block = { GDN_ANY_THREADS },
				    .params = p },
				  { .kernel = CUDA_KERNEL_gdn_any_sums,
				    .grid = { d, heads, frames },
				    .block = { GDN_ANY_THREADS },
				    .params = p },
				  { .kernel = CUDA_KERNEL_gdn_any_scan,
				    .grid = { d + 1, heads },
				    .block = { GDN_ANY_THREADS },
				    .shared_bytes = 2 * d * (unsigned int)sizeof(float),
				    .params = p },
				  { .kernel = CUDA_KERNEL_gdn_any_read,
				    .grid = { cuda_blocks(tokens, GDN_ANY_QUERIES), heads, frames },
				    .block = { GDN_ANY_THREADS },
				    .shared_bytes = (unsigned int)any_read_bytes(p->head_dim),
				    .params = p },
			  });
}

int cuda_run_gdn(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_gdn *op = params;
	const struct gdn_kernels *kernels;
	struct gdn_params p;
	struct gdn_plan plan;

	if (!op->rope)
		return -EINVAL;
	plan = plan_of(op);
	if (!head_fits(device, op))
		return -ENOTSUP;
	if (!valid(op, &plan))
		return -EINVAL;
	params_fill(op, &plan, &p);
	kernels = fast_kernels(device, op);
	return kernels ? run_fast(device, queue, kernels, &p, (unsigned int)turns_bytes(op->rope)) :
			 run_any(device, queue, &p);
}
