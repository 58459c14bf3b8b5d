/* One case of softmax attention, of the delta rule and of its gates. */
#include "tools/bench/op_check.h"

#include <math.h>

void check_rotation(struct cuda_test *test, int rows, int pairs, const float **cpu_cos,
		    const float **cpu_sin, const float **gpu_cos, const float **gpu_sin)
{
	struct cuda_tensor angle = cuda_test_random(test, (size_t)rows * pairs + 1, -3, 3, true);
	float *cosines = malloc(angle.count * sizeof(float));
	float *sines = malloc(angle.count * sizeof(float));
	struct cuda_tensor c, s;

	for (size_t i = 0; i < angle.count; i++) {
		cosines[i] = cosf(angle.cpu[i]);
		sines[i] = sinf(angle.cpu[i]);
	}
	c = cuda_test_values(test, cosines, angle.count, true);
	s = cuda_test_values(test, sines, angle.count, true);
	free(cosines);
	free(sines);
	*cpu_cos = c.cpu, *cpu_sin = s.cpu, *gpu_cos = c.gpu, *gpu_sin = s.gpu;
}

void check_attention_fill(struct cuda_test *test, const struct attention_case *c,
			  struct attention_run *run)
{
	const size_t columns = (size_t)c->heads * c->head_dim;
	const size_t kv = (size_t)c->kv_heads * c->head_dim, ldq = columns + c->pad;
	const double spread = c->spread;
	struct cuda_tensor q, gate;

	run->cpu = (struct kernel_attention){
		.ldq = ldq,
		.ldg = ldq,
		.ldy = c->in_place ? ldq : columns,
		.segments = KERNEL_SEGMENTS,
		.rows = c->rows,
		.heads = c->heads,
		.kv_heads = c->kv_heads,
		.head_dim = c->head_dim,
		.scale = 1.0f / sqrtf((float)c->head_dim),
		.softcap = c->softcap,
		.causal = c->causal,
		.window = c->window,
	};
	run->gpu = run->cpu;
	q = cuda_test_random(test, (size_t)c->rows * ldq, -spread, spread, false);
	gate = cuda_test_random(test, (size_t)c->rows * ldq, -3, 3, false);
	run->y = c->in_place ? q : cuda_test_output(test, (size_t)c->rows * columns, false);
	run->cpu.q = q.cpu, run->gpu.q = q.gpu;
	run->cpu.y = run->y.cpu, run->gpu.y = run->y.gpu;
	if (c->gate)
		run->cpu.gate = gate.cpu, run->gpu.gate = gate.gpu;
	for (int i = 0; i < KERNEL_SEGMENTS; i++) {
		const size_t count = (size_t)c->tokens[i] * (kv + c->pad);
		const struct cuda_tensor k =
			cuda_test_random(test, count + 1, -spread, spread, false);
		const struct cuda_tensor v = cuda_test_random(test, count + 1, -1, 2, false);

		run->cpu.segment[i] =
			(struct kernel_segment){ k.cpu, v.cpu, kv + c->pad, c->tokens[i] };
		run->gpu.segment[i] =
			(struct kernel_segment){ k.gpu, v.gpu, kv + c->pad, c->tokens[i] };
	}
	if (c->mask) {
		const int keys = c->tokens[0] + c->tokens[1] + c->tokens[2];
		uint8_t *mask = malloc((size_t)keys);
		struct cuda_test_bytes both;

		for (int j = 0; j < keys; j++)
			mask[j] = j % 7 != 0;
		both = cuda_test_bytes(test, mask, (size_t)keys);
		free(mask);
		run->cpu.key_mask = both.cpu, run->gpu.key_mask = both.gpu;
	}
}

void check_attention(struct cuda_test *test, uint64_t seed, const struct attention_case *c)
{
	struct attention_run run;

	cuda_test_reset(test, seed);
	check_attention_fill(test, c, &run);
	cuda_test_run(test, KERNEL_OP_attention, &run.cpu.workspace, &run.gpu.workspace);
	/* The softmax weights are rounded too, as operands of the second product. */
	(void)cuda_test_compare(test, KERNEL_OP_attention, &run.y, CUDA_CHAIN_TOLERANCE,
				"%d queries, %d+%d+%d keys, %d heads of %d", c->rows, c->tokens[0],
				c->tokens[1], c->tokens[2], c->heads, c->head_dim);
}

static void gdn_pointers(struct kernel_gdn *op, const struct kernel_rope *rope, void *wide,
			 size_t c, size_t bytes)
{
	op->rope = rope;
	if (!wide) /* there is no GPU */
		return;
	op->q = wide;
	op->k = (char *)wide + c * bytes;
	op->v = (char *)wide + 2 * c * bytes;
	op->gate = (char *)wide + 3 * c * bytes;
}

void check_gdn_fill(struct cuda_test *test, const struct gdn_case *c, struct gdn_run *run)
{
	const size_t channels = (size_t)c->heads * c->head_dim, ld = 4 * channels + c->pad;
	const size_t rows = (size_t)c->frames * c->height * c->width;
	const size_t matrix = channels * c->head_dim;
	const struct cuda_tensor wide = cuda_test_random(test, rows * ld, -1, 1, false);
	const struct cuda_tensor q_norm = cuda_test_random(test, channels, 0.5, 1.5, true);
	const struct cuda_tensor k_norm = cuda_test_random(test, channels, 0.5, 1.5, true);
	const struct cuda_tensor beta = cuda_test_random(test, rows * c->heads, 0.1, 0.9, true);
	const struct cuda_tensor decay =
		cuda_test_random(test, (size_t)c->frames * c->heads, 0.7, 1, true);
	struct kernel_rope *cpu = &run->rope[0], *gpu = &run->rope[1];

	*cpu = (struct kernel_rope){ .frames = c->frames,
				     .height = c->height,
				     .width = c->width,
				     .pairs_t = c->pairs_t,
				     .pairs_y = c->pairs_y,
				     .pairs_x = c->head_dim / 2 - c->pairs_t - c->pairs_y };
	*gpu = *cpu;
	check_rotation(test, c->frames, cpu->pairs_t, &cpu->cos_t, &cpu->sin_t, &gpu->cos_t,
		       &gpu->sin_t);
	check_rotation(test, c->height, cpu->pairs_y, &cpu->cos_y, &cpu->sin_y, &gpu->cos_y,
		       &gpu->sin_y);
	check_rotation(test, c->width, cpu->pairs_x, &cpu->cos_x, &cpu->sin_x, &gpu->cos_x,
		       &gpu->sin_x);
	run->state = cuda_test_random(test, matrix, -0.1, 0.1, true);
	/* The denominator is a sum of products of what is not negative. */
	run->normaliser = cuda_test_random(test, channels, 0.5, 1, true);
	run->wide = wide;
	run->beta = beta;
	run->y = cuda_test_output(test, rows * channels, false);
	run->cpu = (struct kernel_gdn){
		.ld = ld,
		.q_norm = q_norm.cpu,
		.k_norm = k_norm.cpu,
		.beta = beta.cpu,
		.decay = decay.cpu,
		.y = run->y.cpu,
		.epsilon = 1e-5f,
		.heads = c->heads,
		.head_dim = c->head_dim,
	};
	run->gpu = run->cpu;
	run->gpu.q_norm = q_norm.gpu, run->gpu.k_norm = k_norm.gpu;
	run->gpu.beta = beta.gpu, run->gpu.decay = decay.gpu, run->gpu.y = run->y.gpu;
	gdn_pointers(&run->cpu, cpu, wide.cpu, channels, sizeof(float));
	gdn_pointers(&run->gpu, gpu, wide.gpu, channels, sizeof(uint16_t));
	if (c->state) {
		run->cpu.state_in = run->state.cpu, run->gpu.state_in = run->state.gpu;
		run->cpu.normaliser_in = run->normaliser.cpu;
		run->gpu.normaliser_in = run->normaliser.gpu;
	}
	if (c->state_out) {
		run->cpu.state_out = run->state.cpu, run->gpu.state_out = run->state.gpu;
		run->cpu.normaliser_out = run->normaliser.cpu;
		run->gpu.normaliser_out = run->normaliser.gpu;
	}
}

void check_gdn(struct cuda_test *test, uint64_t seed, const struct gdn_case *c)
{
	struct gdn_run run;

	cuda_test_reset(test, seed);
	check_gdn_fill(test, c, &run);
	cuda_test_run(test, KERNEL_OP_gdn, &run.cpu.workspace, &run.gpu.workspace);
	/* Normed and turned q and k, and the state read, are rounded before their products. */
	(void)cuda_test_compare(test, KERNEL_OP_gdn, &run.y, 2 * CUDA_CHAIN_TOLERANCE,
				"gdn %d frames of %dx%d, %d heads of %d", c->frames, c->height,
				c->width, c->heads, c->head_dim);
	if (!c->state_out)
		return;
	(void)cuda_test_compare(test, KERNEL_OP_gdn, &run.state, CUDA_CHAIN_TOLERANCE, "  state");
	(void)cuda_test_compare(test, KERNEL_OP_gdn, &run.normaliser, CUDA_CHAIN_TOLERANCE,
				"  normaliser");
}

void check_gates_fill(struct cuda_test *test, const int c[4], struct gates_run *run)
{
	const int frames = c[0], tokens = c[1], channels = c[2], heads = c[3];
	const size_t all = (size_t)frames * tokens;
	const struct cuda_tensor u = cuda_test_random(test, all * channels, -1, 2, false);
	struct cuda_tensor bias[4];

	for (int j = 0; j < 4; j++)
		bias[j] = cuda_test_random(test, (size_t)heads, -1, 1, true);
	for (int j = 0; j < 2; j++)
		run->weight[j] = cuda_test_weight(test, heads, channels, 1, 0, 1, 1.0);
	run->beta = cuda_test_output(test, all * heads, true);
	run->decay = cuda_test_output(test, (size_t)frames * heads, true);
	run->cpu = (struct kernel_gdn_gates){ { NULL, 0 },
					      u.cpu,
					      &run->weight[0].cpu,
					      &run->weight[1].cpu,
					      bias[0].cpu,
					      bias[1].cpu,
					      bias[2].cpu,
					      bias[3].cpu,
					      run->beta.cpu,
					      run->decay.cpu,
					      frames,
					      tokens,
					      channels,
					      heads };
	run->gpu = (struct kernel_gdn_gates){ { NULL, 0 },
					      u.gpu,
					      &run->weight[0].gpu,
					      &run->weight[1].gpu,
					      bias[0].gpu,
					      bias[1].gpu,
					      bias[2].gpu,
					      bias[3].gpu,
					      run->beta.gpu,
					      run->decay.gpu,
					      frames,
					      tokens,
					      channels,
					      heads };
}

void check_gates(struct cuda_test *test, uint64_t seed, const int c[4])
{
	struct gates_run run;

	cuda_test_reset(test, seed);
	check_gates_fill(test, c, &run);
	cuda_test_run(test, KERNEL_OP_gdn_gates, &run.cpu.workspace, &run.gpu.workspace);
	(void)cuda_test_compare(test, KERNEL_OP_gdn_gates, &run.beta, CUDA_FLOAT_TOLERANCE,
				"beta [%d x %d][%d], %d heads", c[0], c[1], c[2], c[3]);
	(void)cuda_test_compare(test, KERNEL_OP_gdn_gates, &run.decay, CUDA_FLOAT_TOLERANCE,
				"  decay");
}
