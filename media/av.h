/* Small helpers over libav: errors as ours, files opened for reading. */
#pragma once

#include "base/error.h"

#include <libavformat/avformat.h>

/* A libav error as a negative errno: itself where it is one. */
int media_av_code(int averror);

/* "PATH: WHAT: REASON." under `name`; returns media_av_code(averror). */
int media_av_fail(struct sana_error *error, int averror, const char *name, const char *path,
		  const char *what);

/* libav prints nothing from here on: what it has to say comes back as errors. Process wide. */
void media_av_quiet(void);

/* Asked often while a call waits; true ends the wait with −EINTR. */
typedef bool (*media_stopped)(void *context);

struct media_input {
	AVFormatContext *format;
	AVIOContext *bytes; /* NULL where libav opens files itself (sequences, devices) */
};

struct media_input_wish {
	const char *path;     /* "-": YUV4MPEG2 on standard input */
	bool sequence;	      /* `path` is a pattern of numbered pictures */
	bool device;	      /* `path` is a V4L2 device */
	bool pipes;	      /* `path` may be a pipe: opening it waits for a writer, for ever */
	int fps_num, fps_den; /* of sequences and devices; 0: libav's or the device's own */
	AVIOInterruptCB interrupt;
};

/*
 * Opens a container and looks at its streams. Only local files are opened, and no format that names
 * other files or turns text into pictures. Nothing is opened that may wait to be opened: neither pipes
 * nor sockets nor devices other than the wish says. "source.open", "source.format".
 */
int media_input_open(const struct media_input_wish *wish, struct media_input *ret,
		     struct sana_error *error);

/* Accepts a zeroed struct and may be called twice. */
void media_input_close(struct media_input *input);

/* The instant that counts as 0, in a stream's own units: the start of the whole file. */
int64_t media_input_origin(const struct media_input *input, const AVStream *stream);
