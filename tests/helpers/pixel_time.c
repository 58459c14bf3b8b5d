/*
 * Processor time of what happens to a frame outside of the engine: a camera's picture to the model's
 * RGB, and RGB to what a virtual camera or a display takes. One thread; milliseconds, the best of five
 * rounds of twenty.
 */
#include <libavutil/pixfmt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <turbojpeg.h>

#include "base/util.h"
#include "daemon/source_v4l2_jpeg.h"
#include "media/convert.h"
#include "media/letterbox.h"

enum { ROUNDS = 5, FRAMES = 20, MOST = 4 * 1920 * 1080 };

static uint8_t from[MOST], to[MOST];

static double cpu_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct work {
	struct media_convert *convert;
	struct media_picture picture;
	int width;
	struct source_v4l2_jpeg jpeg;
	const uint8_t *jpeg_data;
	size_t jpeg_bytes;
	struct media_letterbox box;
	struct media_target target;
};

static void in_once(struct work *w)
{
	if (w->jpeg_data)
		(void)source_v4l2_jpeg_decode(&w->jpeg, w->jpeg_data, w->jpeg_bytes, &w->picture,
					      NULL);
	(void)media_convert_run(w->convert, &w->picture, to, 3 * (size_t)w->width, NULL);
}

static void out_once(struct work *w)
{
	media_letterbox_run(&w->box, from, 3 * (size_t)w->width, &w->target);
}

static double best(struct work *w, void (*once)(struct work *))
{
	double least = 1e9;

	once(w); /* takes its memory */
	for (int r = 0; r < ROUNDS; r++) {
		const double start = cpu_ms();

		for (int i = 0; i < FRAMES; i++)
			once(w);
		least = MIN_OF(least, (cpu_ms() - start) / FRAMES);
	}
	return least;
}

static void in_time(const char *name, int format, int width, int height, int to_width,
		    int to_height)
{
	const size_t pixels = (size_t)width * (size_t)height;
	struct work w = {
		.picture = { .plane = { from, from + pixels, from + pixels * 5 / 4 },
			     .row_bytes = { width, width / 2, width / 2 },
			     .format = format,
			     .width = width,
			     .height = height,
			     .siting = MEDIA_SITING_CENTRE,
			     .aspect_num = 1,
			     .aspect_den = 1 },
		.width = to_width,
	};
	unsigned char *data = NULL;
	unsigned long bytes = 0;

	if (format == AV_PIX_FMT_YUYV422)
		w.picture.row_bytes[0] = 2 * width;
	else if (format == AV_PIX_FMT_NV12)
		w.picture.row_bytes[1] = width;
	else if (format == AV_PIX_FMT_RGB24)
		w.picture.row_bytes[0] = 3 * width;
	if (format == AV_PIX_FMT_NONE) {
		tjhandle encoder = tjInitCompress();

		for (size_t i = 0; i < 3 * pixels; i++)
			to[i] = (uint8_t)(i / 3 % (size_t)width / 8 + i / 3 / (size_t)width / 4 +
					  i % 3);
		if (!encoder ||
		    tjCompress2(encoder, to, width, 0, height, TJPF_RGB, &data, &bytes, TJSAMP_422,
				90, 0) < 0 ||
		    source_v4l2_jpeg_init(&w.jpeg, width, height) < 0)
			exit(1);
		(void)tjDestroy(encoder);
		w.jpeg_data = data;
		w.jpeg_bytes = bytes;
		w.picture.full_range = true;
	}
	if (media_convert_create(to_width, to_height, true, &w.convert, NULL) < 0)
		exit(1);
	printf("in   %-5s %dx%d to RGB %dx%d: %.2f ms\n", name, width, height, to_width, to_height,
	       best(&w, in_once));
	(void)media_convert_destroy(w.convert);
	source_v4l2_jpeg_finish(&w.jpeg);
	tjFree(data);
}

static void out_time(const char *name, int format, int width, int height, int to_width,
		     int to_height)
{
	struct work w = { .width = width };

	(void)media_target_init(&w.target, format, to_width, to_height, to);
	if (media_letterbox_init(&w.box, width, height, to_width, to_height, true) < 0)
		exit(1);
	printf("out  RGB %dx%d to %-5s %dx%d: %.2f ms\n", width, height, name, to_width, to_height,
	       best(&w, out_once));
	media_letterbox_finish(&w.box);
}

int main(void)
{
	static const struct {
		const char *name;
		int format;
	} in[] = { { "YUYV", AV_PIX_FMT_YUYV422 },
		   { "NV12", AV_PIX_FMT_NV12 },
		   { "YU12", AV_PIX_FMT_YUV420P },
		   { "RGB3", AV_PIX_FMT_RGB24 },
		   { "MJPG", AV_PIX_FMT_NONE } },
	  out[] = { { "YUYV", AV_PIX_FMT_YUYV422 },
		    { "NV12", AV_PIX_FMT_NV12 },
		    { "YU12", AV_PIX_FMT_YUV420P },
		    { "XR24", AV_PIX_FMT_BGR0 } };

	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)(i * 2654435761u >> 13);
	for (size_t i = 0; i < ARRAY_SIZE(in); i++) {
		in_time(in[i].name, in[i].format, 640, 360, 256, 144);
		in_time(in[i].name, in[i].format, 640, 360, 1280, 704);
		in_time(in[i].name, in[i].format, 1280, 720, 1280, 704);
	}
	for (size_t i = 0; i < ARRAY_SIZE(out); i++) {
		out_time(out[i].name, out[i].format, 256, 144, 256, 144);
		out_time(out[i].name, out[i].format, 640, 352, 640, 352);
		out_time(out[i].name, out[i].format, 1280, 704, 1280, 720);
	}
	out_time("XR24", AV_PIX_FMT_BGR0, 1280, 704, 1920, 1080);
	return 0;
}
