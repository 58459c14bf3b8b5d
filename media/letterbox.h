/* A picture in the middle of a device's picture: scaled where it has to be, packed, black around it. */
#pragma once

#include "media/geometry.h"
#include "media/pack.h"
#include "media/resample.h"

struct media_letterbox {
	struct media_place place;
	bool scales;
	struct media_resampler resampler;
	uint8_t *scaled; /* place.width x place.height RGB; NULL: nothing to scale */
	struct media_pack pack;
};

/* From width x height to target_width x target_height. −ENOMEM. */
int media_letterbox_init(struct media_letterbox *box, int width, int height, int target_width,
			 int target_height, bool enlarge);

/* Accepts a zeroed struct and may be called twice. */
void media_letterbox_finish(struct media_letterbox *box);

/* Writes the picture's own part of `to`; what lies around it stays (media_target_clear, once). */
void media_letterbox_run(struct media_letterbox *box, const uint8_t *rgb, size_t row_bytes,
			 const struct media_target *to);
