/*
 * MJPEG pictures through libjpeg-turbo, to planes: 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1 or grey, BT.601
 * full range as JFIF has it. Missing Huffman tables are the standard's own. Nothing of a picture is
 * believed: another size than the negotiated one, no end marker (cut off) where the camera has sent one
 * before, or more scans than a camera would make are refused.
 *
 * libjpeg takes and gives back its working memory for every picture; our own is taken once.
 */
#pragma once

#include "base/error.h"
#include "media/picture.h"

struct source_v4l2_jpeg {
	void *decoder;
	int width, height; /* as negotiated */
	uint8_t *plane[3];
	int row_bytes;
	bool has_end; /* a picture of this camera had an end marker */
};

int source_v4l2_jpeg_init(struct source_v4l2_jpeg *jpeg, int width, int height);

/* Accepts a zeroed struct and may be called twice. */
void source_v4l2_jpeg_finish(struct source_v4l2_jpeg *jpeg);

/* Sets planes, format and siting of `ret` and leaves the rest. −EBADMSG "source.damaged". */
int source_v4l2_jpeg_decode(struct source_v4l2_jpeg *jpeg, const uint8_t *data, size_t bytes,
			    struct media_picture *ret, struct sana_error *error);
