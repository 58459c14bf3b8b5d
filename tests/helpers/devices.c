/*
 * The daemon's devices without the daemon, for the guest with real drivers:
 *
 *	devices list
 *	devices capture IDENTITY FRAMES [WxH [FPS [FORMAT]]]   prints what was negotiated, then counts
 *	devices faults IDENTITY SECONDS [WxH]   opens again and again; prints each fault as it appears
 *	devices show IDENTITY FRAMES WxH [FPS [MODE [FORMAT]]]   writes numbered pictures
 *	devices expect FRAME WxH FORMAT WxH     the bytes that a virtual camera should give, to stdout
 *	devices hotplug SECONDS
 *
 * Numbered pictures say their number in every pixel, so that a reader can tell them apart.
 *
 * Operations are called through their tables, so that no video files and none of libav come along.
 */
#include <errno.h>
#include <libavutil/pixfmt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#include "base/clock.h"
#include "base/util.h"
#include "daemon/hotplug.h"
#include "daemon/sink_kms.h"
#include "daemon/sink_loopback.h"
#include "daemon/source_v4l2.h"
#include "media/convert.h"
#include "media/letterbox.h"
#include "media/sink_ops.h"
#include "media/source_ops.h"

static int fail(const struct sana_error *error)
{
	printf("error %s %d %s\n", error->name, error->code, error->text);
	return 1;
}

static bool size_read(const char *text, int *ret_width, int *ret_height)
{
	return sscanf(text, "%dx%d", ret_width, ret_height) == 2;
}

static int list(void)
{
	static const struct {
		const char *name;
		media_list_function list;
	} kinds[] = {
		{ "source", source_v4l2_list },
		{ "sink", sink_loopback_list },
		{ "sink", sink_kms_list },
	};
	static struct media_device devices[64];

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		const int count = kinds[k].list(devices, ARRAY_SIZE(devices));

		for (int i = 0; i < count; i++)
			printf("%s|%s|%s|%s\n", kinds[k].name, devices[i].identity,
			       devices[i].description, devices[i].present ? "present" : "absent");
	}
	return 0;
}

/* ----------------------------------------------------------------------------------- capture */

static int capture(int argc, char **argv)
{
	struct media_source_wish wish = { .path = argv[2] };
	const int frames = atoi(argv[3]);
	struct media_picture p = { 0 };
	struct media_convert *convert;
	struct media_source *source;
	struct sana_error error = { 0 };
	int64_t first = 0, last = 0, oldest = 0;
	int taken = 0, lost = 0, r;
	uint8_t *rgb;
	long sum = 0;

	if (argc > 4)
		(void)size_read(argv[4], &wish.width, &wish.height);
	wish.fps_num = argc > 5 ? atoi(argv[5]) : 0;
	wish.fps_den = 1;
	wish.pixel_format = argc > 6 ? argv[6] : NULL;
	if (source_v4l2_open(&wish, &source, &error) < 0)
		return fail(&error);
	printf("open %s\n", source->info.description);
	rgb = malloc(3 * 256 * 144);
	if (!rgb || media_convert_create(256, 144, true, &convert, &error) < 0)
		return 1;
	while (taken < frames && lost < 100) {
		r = source->ops->read(source, &p, &error);
		if (r == -EAGAIN) {
			lost++;
			continue;
		}
		if (r < 0 || media_convert_run(convert, &p, rgb, 3 * 256, &error) < 0)
			return fail(&error);
		first = first ? first : p.capture_ns;
		oldest = MAX_OF(oldest, clock_now_ns() - p.capture_ns);
		if (p.capture_ns <= last)
			printf("time went back\n");
		last = p.capture_ns;
		taken++;
	}
	for (int i = 0; i < 3 * 256 * 144; i++)
		sum += rgb[i];
	printf("frames %d lost %d rate %.2f oldest_ms %.1f mean %.2f damaged %lld restamped %lld "
	       "missed %lld\n",
	       taken, lost, taken > 1 ? (taken - 1) * 1e9 / (double)(last - first) : 0.0,
	       (double)oldest / 1e6, (double)sum / (3 * 256 * 144), (long long)source->info.damaged,
	       (long long)source->info.restamped, (long long)source->info.missed);
	printf("pixels %d %d %d %d %d %d\n", rgb[3 * 256 * 20 + 3 * 10], rgb[3 * 256 * 20 + 31],
	       rgb[3 * 256 * 20 + 32], rgb[3 * 256 * 20 + 3 * 50], rgb[3 * 256 * 20 + 151],
	       rgb[3 * 256 * 20 + 152]);
	(void)media_convert_destroy(convert);
	free(rgb);
	source->ops->close(source);
	return taken == frames ? 0 : 1;
}

/* As the pipeline does it: close, wait, open again. A kind is printed when it changes. */
static int faults(int argc, char **argv)
{
	struct media_source_wish wish = { .path = argv[2] };
	const int64_t end = clock_now_ns() + atoi(argv[3]) * CLOCK_SECOND_NS;
	struct media_source *source = NULL;
	struct media_picture p;
	char present[48] = "start";
	long frames = 0;

	if (argc > 4)
		(void)size_read(argv[4], &wish.width, &wish.height);
	while (clock_now_ns() < end) {
		struct sana_error error = { 0 };
		int r = source ? 0 : source_v4l2_open(&wish, &source, &error);

		if (r == 0)
			r = source->ops->read(source, &p, &error);
		if (r > 0) {
			frames++;
			(void)snprintf(error.name, sizeof(error.name), "flows");
		}
		if (strcmp(present, error.name) != 0) {
			printf("%.2f %s after %ld frames: %s\n", (double)clock_now_ns() / 1e9,
			       error.name, frames, error.text);
			fflush(stdout);
			(void)snprintf(present, sizeof(present), "%s", error.name);
		}
		if (r < 0 && r != -EAGAIN) {
			if (source)
				source->ops->close(source);
			source = NULL;
			(void)poll(NULL, 0, 250);
		}
	}
	if (source)
		source->ops->close(source);
	return 0;
}

/* ------------------------------------------------------------------------------------- show */

static void picture_draw(uint8_t *rgb, int width, int height, int number)
{
	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++) {
			uint8_t *to = rgb + 3 * (y * width + x);

			to[0] = (uint8_t)(number * 8);
			to[1] = (uint8_t)(x * 255 / width);
			to[2] = (uint8_t)(y * 255 / height);
		}
}

/* MASTER in the environment: at frame 20 the sink's own descriptor, found by trying, loses the card. */
static void drop_master(void)
{
	for (int i = 3; i < 64; i++)
		if (drmDropMaster(i) == 0)
			printf("master dropped\n");
}

static int show(int argc, char **argv)
{
	struct media_sink_wish wish = { .path = argv[2], .fps_num = 25, .fps_den = 1 };
	const int frames = atoi(argv[3]);
	struct media_sink *sink;
	struct sana_error error = { 0 };
	bool watched = false;
	int64_t next;
	uint8_t *rgb;
	int r = 0, lost = 0;

	if (!size_read(argv[4], &wish.width, &wish.height))
		return 2;
	if (argc > 5)
		wish.fps_num = atoi(argv[5]);
	wish.mode = argc > 6 && argv[6][0] ? argv[6] : NULL;
	wish.pixel_format = argc > 7 && argv[7][0] ? argv[7] : NULL;
	wish.unscaled = getenv("UNSCALED") != NULL;
	wish.state_directory = getenv("STATE_DIRECTORY");
	r = strncmp(wish.path, "kms:", 4) == 0 ? sink_kms_open(&wish, &sink, &error) :
						 sink_loopback_open(&wish, &sink, &error);
	if (r < 0)
		return fail(&error);
	printf("open %s %s %s %s\n", sink->info.container, sink->info.codec, sink->info.encoder,
	       sink->info.note);
	fflush(stdout);
	rgb = malloc(3 * (size_t)wish.width * (size_t)wish.height);
	if (!rgb)
		return 1;
	next = clock_now_ns();
	for (int i = 0; i < frames; i++) {
		const bool now = sink->ops->is_watched(sink);

		if (i == 20 && getenv("MASTER"))
			drop_master();
		if (now != watched || i == 0)
			printf("%.2f frame %d %s\n", (double)clock_now_ns() / 1e9, i,
			       now ? "watched" : "unwatched");
		watched = now;
		picture_draw(rgb, wish.width, wish.height, i);
		r = sink->ops->write(sink, rgb, 3 * (size_t)wish.width, 0, 0, &error);
		if (r == -EAGAIN && !lost++)
			(void)fail(&error);
		if (r == 0 && lost) {
			printf("%.2f back after %d\n", (double)clock_now_ns() / 1e9, lost);
			lost = 0;
		}
		fflush(stdout);
		if (r < 0 && r != -EAGAIN)
			break;
		next += CLOCK_SECOND_NS / wish.fps_num;
		(void)poll(NULL, 0, clock_poll_ms(next));
	}
	printf("frames %d replaced %lld late_ms %.1f\n", frames, (long long)sink->info.replaced,
	       (double)(clock_now_ns() - next) / 1e6);
	sink->ops->close(sink);
	free(rgb);
	return r < 0 && r != -EAGAIN ? fail(&error) : 0;
}

static int expect(char **argv)
{
	int width, height, to_width, to_height, format = AV_PIX_FMT_YUYV422;
	struct media_letterbox box;
	struct media_target to;
	uint8_t *rgb, *data;
	size_t bytes;

	if (!size_read(argv[3], &width, &height) || !size_read(argv[5], &to_width, &to_height))
		return 2;
	if (strcmp(argv[4], "nv12") == 0)
		format = AV_PIX_FMT_NV12;
	else if (strcmp(argv[4], "yu12") == 0)
		format = AV_PIX_FMT_YUV420P;
	else if (strcmp(argv[4], "bgrx") == 0)
		format = AV_PIX_FMT_BGR0;
	bytes = media_target_init(&to, format, to_width, to_height, NULL);
	rgb = malloc(3 * (size_t)width * (size_t)height);
	data = malloc(bytes);
	if (!rgb || !data ||
	    media_letterbox_init(&box, width, height, to_width, to_height,
				 getenv("UNSCALED") == NULL) < 0)
		return 1;
	(void)media_target_init(&to, format, to_width, to_height, data);
	media_target_clear(&to, to_width, to_height);
	picture_draw(rgb, width, height, atoi(argv[2]));
	media_letterbox_run(&box, rgb, 3 * (size_t)width, &to);
	(void)!fwrite(data, 1, bytes, stdout);
	media_letterbox_finish(&box);
	free(rgb);
	free(data);
	return 0;
}

static int hotplug(char **argv)
{
	const int64_t end = clock_now_ns() + atoi(argv[2]) * CLOCK_SECOND_NS;
	struct hotplug *h;
	struct hotplug_event event;
	struct sana_error error = { 0 };

	if (hotplug_create(&h, &error) < 0)
		return fail(&error);
	printf("watching\n");
	fflush(stdout);
	while (clock_now_ns() < end) {
		struct pollfd fd = { .fd = hotplug_fd(h), .events = POLLIN };

		(void)poll(&fd, 1, clock_poll_ms(end));
		while (hotplug_next(h, &event)) {
			printf("%s %s %s\n", event.kind == HOTPLUG_VIDEO ? "video" : "display",
			       event.added ? "there" : "gone", event.node);
			fflush(stdout);
		}
	}
	(void)hotplug_destroy(h);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "list") == 0)
		return list();
	if (strcmp(verb, "capture") == 0 && argc > 3)
		return capture(argc, argv);
	if (strcmp(verb, "faults") == 0 && argc > 3)
		return faults(argc, argv);
	if (strcmp(verb, "show") == 0 && argc > 4)
		return show(argc, argv);
	if (strcmp(verb, "expect") == 0 && argc > 5)
		return expect(argv);
	if (strcmp(verb, "hotplug") == 0 && argc > 2)
		return hotplug(argv);
	fprintf(stderr, "usage: devices list | capture | faults | show | expect | hotplug\n");
	return 2;
}
