/*
 * Where pictures go to: video files, numbered pictures, YUV4MPEG2 on standard output.
 *
 *	media_sink_open(&wish, &sink, &error);
 *	media_sink_write(sink, rgb, row_bytes, timestamp_ns, duration_ns, &error);    for each picture
 *	media_sink_finish(sink, MEDIA_FINISH_COMPLETE, &error);
 *	media_sink_close(sink);
 *
 * A file is written under a name of its own, NAME.partial.EXT, and takes its final name when it is
 * complete. Closing a sink that was not finished, or whose finishing failed, removes the partial file; only
 * where it is complete and its name was taken meanwhile it stays as it is.
 * Numbered pictures appear one by one, each only when it is whole.
 *
 * A sink belongs to one thread at a time. Nothing prints. Functions return 0 or a negative errno with
 * `error` filled; after a failed write only finishing and closing make sense, but after −EAGAIN: this
 * picture was not shown (the display's master is elsewhere for now), the next one may be.
 */
#pragma once

#include "base/error.h"
#include "media/picture.h"

struct media_sink;

struct media_sink_wish {
	/*
	 * By its extension: .mp4, .m4v, .mov, .mkv, .webm, .y4m; a pattern such as "out/%04d.png" or
	 * .jpg: numbered pictures, from 1; "-": YUV4MPEG2 on standard output.
	 */
	const char *path;
	int width, height;
	/*
	 * NULL: H.264 where libx264 or libopenh264 is there, else MPEG-4 part 2; VP9 in WebM. Or one of
	 * "h264", "mpeg4", "vp9", "ffv1" (lossless, .mkv).
	 */
	const char *codec;
	int fps_num, fps_den;		  /* constant or average rate; never 0 */
	int time_base_num, time_base_den; /* finest step of the time stamps; 0: microseconds */
	/* Its sound is copied as it is, at the same times; NULL: none. */
	const char *audio_path;
	bool overwrite; /* the final name may exist */
	/*
	 * Video files: what is older than a few seconds can be played when the program or the machine
	 * dies. MP4 in fragments, on the disk every second; a faster encoder setting. Closing one that
	 * could not be finished leaves the partial file where it is.
	 */
	bool durable;
	int threads; /* of the encoder; 0: one per core */
	/*
	 * Of devices. mode: "1280x720" or, of displays, also "1280x720@60"; NULL: the display's preferred
	 * one; of a virtual camera the picture's own size, but 1280x720 for 1280x704.
	 */
	const char *mode;
	const char *pixel_format;    /* of virtual cameras: "yuyv" (NULL), "yu12", "nv12" */
	bool unscaled;		     /* never enlarged: in the middle, as it is */
	const char *state_directory; /* for what must be known after a crash; NULL: none */
};

struct media_sink_info {
	const char *codec;     /* "h264" */
	const char *encoder;   /* "libx264" */
	const char *container; /* "mp4" */
	bool constant_rate;    /* times are lost: pictures follow one another at the rate */
	bool audio;	       /* sound is copied */
	/* What a user should hear once: another codec than usual, sound left out. "" for nothing. */
	char note[SANA_ERROR_TEXT_BYTES];
	const char *partial_path; /* "" for pictures and standard output */
	int64_t frames;
	int64_t replaced; /* of displays: taken, and replaced by a newer one before they were shown */
};

/*
 * "sink.format": the name's extension or the codec; "sink.exists": the final name is taken;
 * "sink.open": cannot be written there; "sink.size": not possible in this format.
 */
int media_sink_open(const struct media_sink_wish *wish, struct media_sink **ret,
		    struct sana_error *error);

/*
 * Encodes rows of 3·width bytes R'G'B'. Time stamps grow strictly; the duration matters for the last
 * picture only, 0: that of one frame at the rate. "sink.write": disk full, reader gone, …
 */
int media_sink_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		     int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error);

enum media_finish {
	MEDIA_FINISH_COMPLETE, /* all sound, final name */
	MEDIA_FINISH_CUT,      /* sound up to the last picture, final name */
	MEDIA_FINISH_PARTIAL,  /* sound up to the last picture; keeps the name NAME.partial.EXT */
};

/* Makes the file playable and gives it its name. Errors as media_sink_write, and "sink.exists". */
int media_sink_finish(struct media_sink *sink, enum media_finish how, struct sana_error *error);

/* NULL accepted; returns NULL. */
struct media_sink *media_sink_close(struct media_sink *sink);

static inline void media_sink_closep(struct media_sink **sink)
{
	(void)media_sink_close(*sink);
}

/*
 * False while nobody looks, as far as the sink can tell: a virtual camera without a reader, a display
 * that is switched off. Cheap: asked for every frame. Kinds that cannot tell answer true.
 */
bool media_sink_is_watched(struct media_sink *sink);

/* Lives as long as the sink. */
const struct media_sink_info *media_sink_info(const struct media_sink *sink);
