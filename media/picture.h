/*
 * One picture as a source gives it: planes of any pixel format, with all that is needed to show it
 * right. Nothing here owns memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MEDIA_MAX_SIDE = 16384,	    /* pixels */
	MEDIA_MAX_PIXELS = 1 << 26, /* of one picture: 8192x8192 */
	MEDIA_PLANES = 4,
};

/* Which Y'CbCr a picture is; RGB pictures have the value and ignore it. */
enum media_matrix {
	MEDIA_MATRIX_INVALID = -1,
	MEDIA_MATRIX_601,
	MEDIA_MATRIX_709,
	MEDIA_MATRIX_2020,
	MEDIA_MATRIX_240M,
	MEDIA_MATRIX_COUNT,
};

/* Where chroma samples lie between luma samples. */
enum media_siting {
	MEDIA_SITING_LEFT,     /* on the left column, between the rows: MPEG-2, H.264 */
	MEDIA_SITING_CENTRE,   /* between columns and rows: JPEG, cameras */
	MEDIA_SITING_TOP_LEFT, /* on the left column and the upper row */
};

/*
 * How stored pixels are turned to be shown, any of eight ways: first columns and rows are exchanged
 * (transpose), then the result is mirrored in x, then in y. 90 degrees clockwise is
 * { transpose, flip_x }.
 */
struct media_orientation {
	bool transpose, flip_x, flip_y;
};

struct media_picture {
	const uint8_t *plane[MEDIA_PLANES];
	int row_bytes[MEDIA_PLANES]; /* negative for pictures stored bottom up */
	int format;		     /* enum AVPixelFormat of libavutil */
	int width, height;	     /* as stored */
	enum media_matrix matrix;
	bool full_range; /* else black is 16 and white 235, of R'G'B' too */
	enum media_siting siting;
	struct media_orientation orientation;
	int aspect_num, aspect_den;	   /* width : height of one stored pixel; never 0 */
	int64_t timestamp_ns, duration_ns; /* duration 0: unknown */
	int64_t capture_ns; /* when it was taken, CLOCK_MONOTONIC; 0: unknown (files) */
};
