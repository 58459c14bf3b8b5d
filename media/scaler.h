/* Pixel formats and colours through libswscale, at one size: no scaling. */
#pragma once

#include "media/picture.h"

#include <libswscale/swscale.h>

struct media_scaler_wish {
	int width, height;
	int from, to; /* enum AVPixelFormat */
	/* Of what is Y'CbCr. */
	enum media_matrix matrix;
	bool full_range;
	enum media_siting siting;
};

/* −ENOTSUP: libswscale cannot do this format; −ENOMEM. */
int media_scaler_create(const struct media_scaler_wish *wish, struct SwsContext **ret);

/* 1080p and 720p are BT.709 wherever nothing else is said, smaller pictures BT.601. */
enum media_matrix media_matrix_of_size(int width, int height);
