/*
 * Where pictures come from: files, pipes, numbered pictures, cameras, a test pattern.
 *
 *	media_source_open(&wish, &source, &error);
 *	while ((r = media_source_read(source, &picture, &error)) > 0)
 *		media_convert_run(convert, &picture, rgb, row_bytes, &error);
 *	media_source_close(source);
 *
 * A picture's planes belong to the source and stay as they are until the next read or the close.
 * Time stamps are nanoseconds since the start of the source (of the whole file: the first picture
 * may come later than 0) and grow strictly: a picture without a usable stamp follows the one before
 * it by the frame rate, and info counts it.
 *
 * A source belongs to one thread at a time. Nothing prints. Functions return 0 or a positive value,
 * or a negative errno with `error` filled.
 */
#pragma once

#include "base/error.h"
#include "media/picture.h"

struct media_source;

struct media_source_wish {
	/*
	 * A regular file; "-": YUV4MPEG2 on standard input; a pattern such as "in/%04d.png":
	 * numbered pictures; a V4L2 device; "pattern:": moving colour bars. Nothing else is opened:
	 * pipes and other devices may wait for ever.
	 */
	const char *path;
	int width, height;    /* of the test pattern; 0: 256x144 */
	int fps_num, fps_den; /* of sequences, patterns and devices; 0: 24, or the device's own */
	int64_t duration_ns;  /* of the test pattern; 0: 10 s */
	int threads;	      /* of the decoder; 0: one per core */
	/* Asked while waiting; true ends the wait with −EINTR, "source.interrupted". NULL: never. */
	bool (*stopped)(void *context);
	void *stopped_context;
	/*
	 * The same for sources that wait with poll(2): readable when the wait is to end. 0: none. A
	 * source that cannot poll asks `stopped` at least ten times a second.
	 */
	int stop_fd;
	/*
	 * Of cameras; NULL: the best one, and what the driver says. For cameras that send something else
	 * than they say.
	 */
	const char *pixel_format; /* "yuyv", "nv12", "mjpeg", … */
	const char *matrix;	  /* "601", "709", "2020", "240m" */
	const char *range;	  /* "limited", "full" */
	bool endless; /* files and patterns start over at their end; time stamps go on growing */
	bool pipes; /* a pipe may be opened by its name, which waits for a writer, `stopped` or not */
};

struct media_source_info {
	int width, height;		  /* as shown: turned upright, pixels square */
	int fps_num, fps_den;		  /* average; 0/1: unknown */
	int time_base_num, time_base_den; /* finest step of its time stamps, seconds */
	int64_t duration_ns;		  /* 0: unknown */
	int64_t frames;			  /* expected; 0: unknown */
	bool live;			  /* has no end of its own */
	bool has_audio;
	bool timed;	      /* the time stamps are the source's own, not made from a rate */
	char description[96]; /* "h264 in mov,mp4, 1920x1080, turned" */
	/* Counted while reading. */
	int64_t damaged;   /* pictures or packets that could not be decoded and were left out */
	int64_t restamped; /* pictures whose time stamp was missing or did not grow */
	int64_t missed; /* pictures that a device counted and could not give: nobody took the last */
};

/*
 * "source.open": cannot be opened; "source.format": opened, but no video that can be read;
 * "source.size": pictures larger than MEDIA_MAX_SIDE or MEDIA_MAX_PIXELS; "source.interrupted".
 */
int media_source_open(const struct media_source_wish *wish, struct media_source **ret,
		      struct sana_error *error);

/* NULL accepted; returns NULL. */
struct media_source *media_source_close(struct media_source *source);

static inline void media_source_closep(struct media_source **source)
{
	(void)media_source_close(*source);
}

/*
 * 1: a picture; 0: the end. Errors: "source.empty": ended without any picture; "source.truncated":
 * ended before its own announced end (all pictures that could be read were given);
 * "source.stalled": a device gave nothing for five seconds; "source.lost": a device was unplugged or
 * failed; "source.size"; "source.interrupted". −EAGAIN with any name: this picture is lost (damaged, no
 * signal), the source stays open, read on. After any other error close it.
 */
int media_source_read(struct media_source *source, struct media_picture *ret,
		      struct sana_error *error);

/* Lives as long as the source; its counters move. */
const struct media_source_info *media_source_info(const struct media_source *source);
