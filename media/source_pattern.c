/*
 * The test pattern: eight colour bars that move, a grey ramp below, and a square that crosses them.
 * Integer arithmetic only: the same pixels everywhere, for each size and frame number.
 */
#include "media/source_ops.h"

#include "base/util.h"

#include <errno.h>
#include <libavutil/pixfmt.h>

enum {
	DEFAULT_WIDTH = 256,
	DEFAULT_HEIGHT = 144,
	DEFAULT_FPS = 24,
	BARS = 8,
	PERIOD_FRAMES = 192, /* the bars are back where they were */
};

static const int64_t SECOND_NS = 1000000000;

struct pattern {
	struct media_source source;
	uint8_t *rgb;
	int width, height;
	int fps_num, fps_den;
	int64_t frame, frames;
};

/* Bars at 75 %, as on test cards: white, yellow, cyan, green, magenta, red, blue, black. */
static const uint8_t bars[BARS][3] = {
	{ 191, 191, 191 }, { 191, 191, 0 }, { 0, 191, 191 }, { 0, 191, 0 },
	{ 191, 0, 191 },   { 191, 0, 0 },   { 0, 0, 191 },   { 0, 0, 0 },
};

static void pattern_draw(const struct pattern *p)
{
	const int t = (int)(p->frame % PERIOD_FRAMES);
	const int shift = t * p->width / PERIOD_FRAMES;
	const size_t row = 3 * (size_t)p->width;
	const int side = MAX_OF(1, p->height / 4);
	const int swing = t < PERIOD_FRAMES / 2 ? t : PERIOD_FRAMES - t; /* there and back */
	const int left = swing * (p->width - side) / (PERIOD_FRAMES / 2);
	const int top = (p->height * 3 / 4 - side) / 2;

	/* One row of each kind, copied to those below; the ramp never changes. */
	for (int x = 0; x < p->width; x++)
		memcpy(p->rgb + 3 * (size_t)x, bars[(x + shift) % p->width * BARS / p->width], 3);
	for (int y = 1; y < p->height * 3 / 4; y++)
		memcpy(p->rgb + row * (size_t)y, p->rgb, row);
	for (int y = p->height * 3 / 4; y < p->height; y++)
		if (y == p->height * 3 / 4)
			for (int x = 0; x < p->width; x++)
				memset(p->rgb + row * (size_t)y + 3 * (size_t)x,
				       x * 255 / MAX_OF(1, p->width - 1), 3);
		else
			memcpy(p->rgb + row * (size_t)y, p->rgb + row * (size_t)(y - 1), row);
	for (int y = MAX_OF(top, 0); y < MIN_OF(top + side, p->height); y++)
		for (int x = left; x < MIN_OF(left + side, p->width); x++)
			memcpy(p->rgb + row * (size_t)y + 3 * (size_t)x,
			       (uint8_t[]){ 240, 140, 60 }, 3);
}

static int64_t pattern_time_ns(const struct pattern *p, int64_t frame)
{
	return frame * SECOND_NS / p->fps_num * p->fps_den +
	       frame * SECOND_NS % p->fps_num * p->fps_den / p->fps_num;
}

static int pattern_read(struct media_source *source, struct media_picture *ret,
			struct sana_error *error)
{
	struct pattern *p = (struct pattern *)source;

	(void)error;
	if (p->frame == p->frames)
		return 0;
	pattern_draw(p);
	*ret = (struct media_picture){
		.plane = { p->rgb },
		.row_bytes = { 3 * p->width },
		.format = AV_PIX_FMT_RGB24,
		.width = p->width,
		.height = p->height,
		.full_range = true,
		.aspect_num = 1,
		.aspect_den = 1,
		.timestamp_ns = pattern_time_ns(p, p->frame),
		.duration_ns = pattern_time_ns(p, p->frame + 1) - pattern_time_ns(p, p->frame),
	};
	p->frame++;
	return 1;
}

static void pattern_close(struct media_source *source)
{
	struct pattern *p = (struct pattern *)source;

	free(p->rgb);
	free(p);
}

static const struct media_source_ops pattern_ops = { pattern_read, pattern_close };

static void pattern_describe(struct pattern *p, int64_t duration_ns)
{
	struct media_source_info *info = &p->source.info;

	/* Without an end: 12 years, as far as its times go. */
	if (duration_ns == INT64_MAX)
		p->frames = INT64_MAX / SECOND_NS;
	while (duration_ns < INT64_MAX && pattern_time_ns(p, p->frames) < duration_ns)
		p->frames++;
	*info = (struct media_source_info){
		.width = p->width,
		.height = p->height,
		.fps_num = p->fps_num,
		.fps_den = p->fps_den,
		.time_base_num = p->fps_den,
		.time_base_den = p->fps_num,
		.duration_ns = pattern_time_ns(p, p->frames),
		.frames = p->frames,
	};
	(void)snprintf(info->description, sizeof(info->description), "test pattern, %dx%d",
		       p->width, p->height);
}

int media_source_pattern_open(const struct media_source_wish *wish, struct media_source **ret,
			      struct sana_error *error)
{
	const int64_t duration_ns = wish->endless	  ? INT64_MAX :
				    wish->duration_ns > 0 ? wish->duration_ns :
							    10 * SECOND_NS;
	const int width = wish->width ? wish->width : DEFAULT_WIDTH;
	const int height = wish->height ? wish->height : DEFAULT_HEIGHT;
	struct pattern *p;

	if (strcmp(wish->path, "pattern:") != 0 && strcmp(wish->path, "pattern:bars") != 0)
		return sana_error_set(error, -EINVAL, "source.open",
				      "%s: the test pattern is called \"pattern:\".", wish->path);
	if (width < 1 || height < 1 || width > MEDIA_MAX_SIDE || height > MEDIA_MAX_SIDE ||
	    (int64_t)width * height > MEDIA_MAX_PIXELS)
		return sana_error_set(
			error, -EINVAL, "source.size",
			"A test pattern of %dx%d is larger than %dx%d or %d megapixels.", width,
			height, MEDIA_MAX_SIDE, MEDIA_MAX_SIDE, MEDIA_MAX_PIXELS >> 20);
	p = calloc(1, sizeof(*p));
	if (p)
		p->rgb = malloc(3 * (size_t)width * (size_t)height);
	if (!p || !p->rgb) {
		free(p);
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	}
	p->source.ops = &pattern_ops;
	p->width = width;
	p->height = height;
	p->fps_num = wish->fps_num > 0 ? wish->fps_num : DEFAULT_FPS;
	p->fps_den = wish->fps_num > 0 ? wish->fps_den : 1;
	pattern_describe(p, duration_ns);
	*ret = &p->source;
	return 0;
}
