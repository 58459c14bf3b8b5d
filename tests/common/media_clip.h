/* Small clips for tests, made with libav directly: what our own sinks cannot write. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct clip_wish {
	const char *path; /* container by its extension */
	const char *
		codec; /* libav's encoder: "mpeg4", "ffv1", "wrapped_avframe" (.y4m); NULL: no video */
	int width, height; /* 4:2:0, even */
	int frames;
	const int64_t *times_ms;    /* [frames]; NULL: 25 frames a second */
	const int32_t *matrix;	    /* [9], display matrix; NULL: none */
	int aspect_num, aspect_den; /* of a pixel; 0: unsaid */
	const char *audio;	    /* libav's encoder: "aac", "pcm_s16le"; NULL: no sound */
	int audio_ms;
	const char *options; /* of libav's muxer, "key=value"; NULL: none */
};

/* The picture has a white left upper corner, the rest is grey that brightens from frame to frame. */
void clip_make(const struct clip_wish *wish);

/* Level of the grey in frame `frame`. */
int clip_grey(int frame);

/* A checksum over payload and time (milliseconds) of all packets of the first track of that kind. */
struct clip_track {
	int packets;
	uint64_t payload, times;
	int64_t end_ms;
};

struct clip_track clip_read_track(const char *path, bool audio);
