/*
 * Pictures of any source as RGB of one size: colours (R'G'B', 8 bits, full range), turned upright,
 * scaled to cover and cropped (media/geometry.h, media/resample.h).
 */
#pragma once

#include "base/error.h"
#include "media/picture.h"

struct media_convert;

/* `antialias`: recommended; without it pictures that shrink are sampled as the reference does. */
int media_convert_create(int width, int height, bool antialias, struct media_convert **ret,
			 struct sana_error *error);

/* NULL accepted; returns NULL. */
struct media_convert *media_convert_destroy(struct media_convert *convert);

static inline void media_convert_destroyp(struct media_convert **convert)
{
	(void)media_convert_destroy(*convert);
}

/*
 * Writes height rows of 3·width bytes. Allocates when the picture's size, format or colours differ
 * from the last one's, and only then. "picture.format": libswscale does not know the pixel format;
 * "picture.size": larger than MEDIA_MAX_SIDE or MEDIA_MAX_PIXELS; "memory".
 */
int media_convert_run(struct media_convert *convert, const struct media_picture *picture,
		      uint8_t *rgb, size_t row_bytes, struct sana_error *error);
