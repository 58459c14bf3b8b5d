/*
 * R'G'B' to what virtual cameras and displays take: BT.601 limited range YUYV, NV12 or YU12, chroma
 * averaged over the pixels it is for and rounded once; or BGRX for displays, as it is.
 *
 * Within half a level and a hundredth of the formulas: products are kept to 1/256 of a level.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "media/picture.h"

/* Where to: planes of a whole device picture. */
struct media_target {
	uint8_t *plane[3];
	size_t row_bytes[3];
	int format; /* AV_PIX_FMT_YUYV422, NV12, YUV420P, BGR0 */
};

struct media_pack {
	int width;
	uint8_t *memory; /* owns the rest: two rows of red, green and blue, one of luma, two halves */
	uint8_t *red[2], *green[2], *blue[2], *luma, *half[2];
};

/* For pictures of `width` (even). −ENOMEM. */
int media_pack_init(struct media_pack *pack, int width);

/* Accepts a zeroed struct and may be called twice. */
void media_pack_finish(struct media_pack *pack);

/*
 * Writes pack->width x height pixels (both even, but for BGR0) from column x and row y (even) on.
 * What lies around them stays.
 */
void media_pack_run(struct media_pack *pack, const uint8_t *rgb, size_t row_bytes, int height,
		    const struct media_target *to, int x, int y);

/* All of it black. */
void media_target_clear(const struct media_target *to, int width, int height);

/* Points at a picture of one buffer without padding; returns its bytes. `data` NULL: only counts. */
size_t media_target_init(struct media_target *to, int format, int width, int height, uint8_t *data);
