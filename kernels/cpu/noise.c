/* Counter-based normal noise. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/noise.h"

enum { ROUNDS = 10, MAX_SIDE = 65536 };

void cpu_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4])
{
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
	uint32_t k0 = key[0], k1 = key[1];

	for (int i = 0; i < ROUNDS; i++) {
		const uint64_t a = (uint64_t)0xd2511f53 * c0, b = (uint64_t)0xcd9e8d57 * c2;

		c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
		c1 = (uint32_t)b;
		c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
		c3 = (uint32_t)a;
		k0 += 0x9e3779b9;
		k1 += 0xbb67ae85;
	}
	ret[0] = c0;
	ret[1] = c1;
	ret[2] = c2;
	ret[3] = c3;
}

/* Box–Muller; of the pair only the cosine is used. */
static float normal(uint64_t seed, uint64_t frame, uint32_t channel, uint32_t pixel)
{
	const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	const uint32_t counter[4] = { pixel, channel, (uint32_t)frame, (uint32_t)(frame >> 32) };
	const double two_pi = 6.283185307179586476925;
	uint32_t w[4];

	cpu_philox4x32(counter, key, w);
	return (float)(sqrt(-2.0 * log(((double)w[0] + 1.0) * 0x1p-32)) *
		       cos(two_pi * (w[1] * 0x1p-32)));
}

/* Called by a whole team. */
static void noise_rows(const struct kernel_noise *op)
{
#pragma omp for schedule(static) collapse(2) nowait
	for (int t = 0; t < op->frames; t++) {
		for (int y = 0; y < op->height; y++) {
			const size_t row = (size_t)t * op->height + y;
			float *to = op->y + row * op->width * op->channels;

			for (int x = 0; x < op->width; x++)
				for (int c = 0; c < op->channels; c++)
					*to++ = normal(*op->seed, *op->first_frame + t, c,
						       (uint32_t)y << 16 | (uint32_t)x);
		}
	}
}

int cpu_noise(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_noise *op = params;

	(void)queue;
	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->channels < 1 ||
	    op->height > MAX_SIDE || op->width > MAX_SIDE)
		return -EINVAL;
	CPU_TEAM(device, noise_rows(op));
	return 0;
}
