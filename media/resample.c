/* Scaling and cropping of interleaved 8-bit RGB. */
#include "media/resample.h"

#include "base/util.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Two taps at the clamped position: exactly the reference's bilinear. */
static void taps_bilinear(int in, double scale, int d, int *ret_first, float *weight)
{
	const double s = MAX_OF(0.0, (d + 0.5) * scale - 0.5);
	const int i0 = MIN_OF((int)floor(s), in - 1);
	const double fraction = i0 + 1 < in ? s - i0 : 0.0;

	/* The last pixel is its own neighbour: the pair is moved inside. */
	*ret_first = MIN_OF(i0, MAX_OF(in - 2, 0));
	weight[i0 - *ret_first] += (float)(1.0 - fraction);
	if (fraction > 0.0)
		weight[i0 + 1 - *ret_first] += (float)fraction;
}

/* A triangle as wide as two output pixels, cut at the picture's edge and normalised. */
static void taps_triangle(int in, int taps, double scale, int d, int *ret_first, float *weight)
{
	const double centre = (d + 0.5) * scale;
	const int low = MAX_OF(0, (int)floor(centre - scale));
	double sum = 0.0, w;

	*ret_first = MAX_OF(0, MIN_OF(low, in - taps));
	for (int k = 0; k < taps && *ret_first + k < in; k++)
		sum += MAX_OF(0.0, 1.0 - fabs(*ret_first + k + 0.5 - centre) / scale);
	for (int k = 0; k < taps && *ret_first + k < in; k++) {
		w = MAX_OF(0.0, 1.0 - fabs(*ret_first + k + 0.5 - centre) / scale);
		weight[k] = (float)(w / sum);
	}
}

static int axis_init(struct media_axis *axis, int in, int scaled, int offset, int outputs,
		     bool antialias)
{
	const double scale = (double)in / scaled;
	const bool wide = antialias && scaled < in;

	axis->outputs = outputs;
	axis->taps = wide ? MIN_OF((int)ceil(2.0 * scale) + 1, in) : MIN_OF(2, in);
	axis->first = calloc((size_t)outputs, sizeof(*axis->first));
	axis->weight = calloc((size_t)outputs * (size_t)axis->taps, sizeof(*axis->weight));
	if (!axis->first || !axis->weight)
		return -ENOMEM;
	for (int i = 0; i < outputs; i++) {
		float *weight = axis->weight + (size_t)i * (size_t)axis->taps;

		if (wide)
			taps_triangle(in, axis->taps, scale, offset + i, &axis->first[i], weight);
		else
			taps_bilinear(in, scale, offset + i, &axis->first[i], weight);
	}
	return 0;
}

static void axis_finish(struct media_axis *axis)
{
	free(axis->first);
	free(axis->weight);
	*axis = (struct media_axis){ 0 };
}

int media_resampler_init(struct media_resampler *resampler, int width, int height,
			 const struct media_fit *fit, int target_width, int target_height,
			 bool antialias)
{
	struct media_resampler *s = resampler;
	int r;

	*s = (struct media_resampler){
		.width = target_width,
		.height = target_height,
		.copy = fit->width == width && fit->height == height,
		.x0 = fit->x0,
		.y0 = fit->y0,
	};
	if (s->copy)
		return 0;
	r = axis_init(&s->x, width, fit->width, fit->x0, target_width, antialias);
	if (r == 0)
		r = axis_init(&s->y, height, fit->height, fit->y0, target_height, antialias);
	if (r == 0) {
		s->row_first = s->x.first[0];
		s->row_count = s->x.first[target_width - 1] + s->x.taps - s->row_first;
		/* One float more: the last pixel is read as four. */
		s->row = calloc((size_t)s->row_count * 3 + 4, sizeof(*s->row));
		s->line = calloc((size_t)target_width * 3 + 1, sizeof(*s->line));
		r = s->row && s->line ? 0 : -ENOMEM;
	}
	if (r < 0)
		media_resampler_finish(s);
	return r;
}

void media_resampler_finish(struct media_resampler *resampler)
{
	axis_finish(&resampler->x);
	axis_finish(&resampler->y);
	free(resampler->row);
	free(resampler->line);
	*resampler = (struct media_resampler){ 0 };
}

/* Weighted sum of input rows; the vertical axis comes first because it runs along memory. */
static void rows_sum(const struct media_resampler *s, int y, const uint8_t *from, size_t row_bytes)
{
	const float *weight = s->y.weight + (size_t)y * (size_t)s->y.taps;
	const size_t count = (size_t)s->row_count * 3;
	float *to = s->row;

	if (s->y.taps == 2) {
		const uint8_t *a =
			from + row_bytes * (size_t)s->y.first[y] + 3 * (size_t)s->row_first;

		/* The same sums in one pass; a weight of 0 adds exactly 0. */
		for (size_t i = 0; i < count; i++)
			to[i] = weight[0] * a[i] + weight[1] * a[row_bytes + i];
		return;
	}
	memset(to, 0, count * sizeof(*to));
	for (int k = 0; k < s->y.taps; k++) {
		const uint8_t *row =
			from + row_bytes * (size_t)(s->y.first[y] + k) + 3 * (size_t)s->row_first;

		if (weight[k] == 0.0f)
			continue;
		for (size_t i = 0; i < count; i++)
			to[i] += weight[k] * row[i];
	}
}

/*
 * Four lanes fit a vector register. The last lane belongs to the next pixel, which overwrites it.
 * Two taps are most of the work when a small camera is enlarged.
 */
static void pixels_sum(const struct media_axis *axis, const float *restrict row, int row_first,
		       float *restrict line)
{
	for (int x = 0; x < axis->outputs; x++, line += 3) {
		const float *restrict weight = axis->weight + (size_t)x * (size_t)axis->taps;
		const float *restrict from = row + 3 * (size_t)(axis->first[x] - row_first);
		float sum[4] = { 0.5f, 0.5f, 0.5f, 0.5f };

		if (axis->taps == 2) {
			for (int c = 0; c < 4; c++)
				line[c] = sum[c] + weight[0] * from[c] + weight[1] * from[3 + c];
			continue;
		}
		for (int k = 0; k < axis->taps; k++, from += 3)
			for (int c = 0; c < 4; c++)
				sum[c] += weight[k] * from[c];
		memcpy(line, sum, sizeof(sum));
	}
}

static void line_round(const float *restrict line, uint8_t *restrict to, int count)
{
	for (int i = 0; i < count; i++)
		to[i] = (uint8_t)(int)MIN_OF(line[i], 255.0f);
}

void media_resampler_run(struct media_resampler *resampler, const uint8_t *from,
			 size_t from_row_bytes, uint8_t *to, size_t to_row_bytes)
{
	const struct media_resampler *s = resampler;

	for (int y = 0; y < s->height; y++) {
		if (s->copy) {
			memcpy(to + to_row_bytes * (size_t)y,
			       from + from_row_bytes * (size_t)(s->y0 + y) + 3 * (size_t)s->x0,
			       3 * (size_t)s->width);
			continue;
		}
		rows_sum(s, y, from, from_row_bytes);
		pixels_sum(&s->x, s->row, s->row_first, s->line);
		line_round(s->line, to + to_row_bytes * (size_t)y, 3 * s->width);
	}
}
