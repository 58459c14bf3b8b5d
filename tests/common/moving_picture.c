/* Clips made from still photographs. */
#include "tests/common/moving_picture.h"

#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

static const char *const names[MOVING_PICTURES] = { "astronaut", "coffee", "chelsea" };

struct moving_picture moving_picture_open(int which)
{
	png_image image = { .version = PNG_IMAGE_VERSION };
	struct moving_picture picture = { .name = names[which] };
	char path[64];

	(void)snprintf(path, sizeof(path), "tests/data/pictures/%s.png", names[which]);
	if (!png_image_begin_read_from_file(&image, path))
		fail_msg("%s: %s", path, image.message);
	image.format = PNG_FORMAT_RGB;
	picture.rgb = malloc(PNG_IMAGE_SIZE(image));
	assert_non_null(picture.rgb);
	if (!png_image_finish_read(&image, NULL, picture.rgb, 0, NULL))
		fail_msg("%s: %s", path, image.message);
	picture.width = (int)image.width;
	picture.height = (int)image.height;
	return picture;
}

void moving_picture_close(struct moving_picture *picture)
{
	free(picture->rgb);
	*picture = (struct moving_picture){ 0 };
}

/* Bilinear, the border repeated. */
static void sample(const struct moving_picture *picture, double x, double y, uint8_t *ret)
{
	const double cx = fmin(fmax(x, 0), picture->width - 1.001);
	const double cy = fmin(fmax(y, 0), picture->height - 1.001);
	const int ix = (int)cx, iy = (int)cy;
	const double fx = cx - ix, fy = cy - iy;
	const uint8_t *p = picture->rgb + 3 * ((ptrdiff_t)iy * picture->width + ix);
	const uint8_t *q = p + 3 * (ptrdiff_t)picture->width;

	for (int c = 0; c < 3; c++) {
		const double upper = p[c] + fx * (p[c + 3] - p[c]);
		const double lower = q[c] + fx * (q[c + 3] - q[c]);

		ret[c] = (uint8_t)(upper + fy * (lower - upper) + 0.5);
	}
}

void moving_picture_frame(const struct moving_picture *picture, int64_t frame, uint8_t *ret)
{
	const double pi = acos(-1),
		     angle = 2 * pi * (double)(frame % MOVING_PERIOD) / MOVING_PERIOD;
	/* 20 x 14 pixels to and fro, 3 degrees to either side, scale 0.92 to 1.08. */
	const double middle_x = 0.5 * picture->width + 20 * cos(angle);
	const double middle_y = 0.5 * picture->height + 14 * sin(angle);
	const double turn = 3 * pi / 180 * sin(angle), scale = 1 + 0.08 * cos(angle + 1);
	const double along = scale * cos(turn), across = scale * sin(turn);

	for (int y = 0; y < MOVING_HEIGHT; y++)
		for (int x = 0; x < MOVING_WIDTH; x++) {
			const double dx = x + 0.5 - 0.5 * MOVING_WIDTH;
			const double dy = y + 0.5 - 0.5 * MOVING_HEIGHT;

			sample(picture, middle_x + along * dx - across * dy - 0.5,
			       middle_y + across * dx + along * dy - 0.5,
			       ret + 3 * (y * MOVING_WIDTH + x));
		}
}
