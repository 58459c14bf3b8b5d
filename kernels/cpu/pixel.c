/* Pixels to patches and back. */
#include "kernels/cpu/internal.h"

static bool sizes_valid(int frames, int height, int width, int channels, int patch)
{
	return frames >= 1 && height >= 1 && width >= 1 && channels >= 1 && patch >= 1 &&
	       height % patch == 0 && width % patch == 0 && patch <= INT_MAX / patch / channels;
}

/* Where channel 0 of a pixel is in the patches; the next channel is p² further. */
static size_t patch_index(int t, int h, int w, int height, int width, int channels, int p)
{
	const size_t rows = height / p, columns = width / p;
	const size_t cell = (t * rows + h / p) * columns + w / p;

	return cell * channels * p * p + (size_t)(w % p) * p + h % p;
}

static void patchify_pixel(const struct kernel_patchify *op, const unsigned char *row, int w,
			   float *y)
{
	const size_t plane = (size_t)op->patch * op->patch;

	for (int c = 0; c < op->channels; c++) {
		const size_t i = (size_t)w * op->channels + c;

		if (op->pixels_are_float)
			memcpy(y + c * plane, row + i * sizeof(*y), sizeof(*y));
		else
			y[c * plane] = (float)(row[i] * (2.0 / 255.0) - 1.0);
	}
}

/* Called by a whole team, as is unpatchify_rows. */
static void patchify_rows(const struct kernel_patchify *op)
{
#pragma omp for schedule(static) collapse(2) nowait
	for (int t = 0; t < op->frames; t++) {
		for (int h = 0; h < op->height; h++) {
			const unsigned char *row = (const unsigned char *)op->pixels +
						   t * op->frame_bytes + h * op->row_bytes;

			for (int w = 0; w < op->width; w++)
				patchify_pixel(op, row, w,
					       (float *)op->y + patch_index(t, h, w, op->height,
									    op->width, op->channels,
									    op->patch));
		}
	}
}

int cpu_patchify(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_patchify *op = params;

	(void)queue;
	if (!sizes_valid(op->frames, op->height, op->width, op->channels, op->patch))
		return -EINVAL;
	CPU_TEAM(device, patchify_rows(op));
	return 0;
}

static unsigned char to_u8(float x, enum kernel_rounding rounding)
{
	const double v = fmin(fmax(127.5 * x + 127.5, 0.0), 255.0);

	return (unsigned char)(rounding == KERNEL_ROUND_NEAREST ? v + 0.5 : v);
}

static void unpatchify_pixel(const struct kernel_unpatchify *op, const float *x, unsigned char *row,
			     int w)
{
	const size_t plane = (size_t)op->patch * op->patch;

	for (int c = 0; c < op->channels; c++) {
		const size_t i = (size_t)w * op->channels + c;

		if (op->pixels_are_float)
			memcpy(row + i * sizeof(*x), x + c * plane, sizeof(*x));
		else
			row[i] = to_u8(x[c * plane], op->rounding);
	}
}

static void unpatchify_rows(const struct kernel_unpatchify *op)
{
#pragma omp for schedule(static) collapse(2) nowait
	for (int t = 0; t < op->frames; t++) {
		for (int h = 0; h < op->height; h++) {
			unsigned char *row = (unsigned char *)op->pixels + t * op->frame_bytes +
					     h * op->row_bytes;

			for (int w = 0; w < op->width; w++)
				unpatchify_pixel(op,
						 (const float *)op->x +
							 patch_index(t, h, w, op->height, op->width,
								     op->channels, op->patch),
						 row, w);
		}
	}
}

int cpu_unpatchify(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_unpatchify *op = params;

	(void)queue;
	if (!sizes_valid(op->frames, op->height, op->width, op->channels, op->patch))
		return -EINVAL;
	CPU_TEAM(device, unpatchify_rows(op));
	return 0;
}
