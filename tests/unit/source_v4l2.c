/*
 * Cameras against a driver that the test plays: what is negotiated, what a picture is, and what
 * becomes of answers that a driver should not give.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "daemon/source_v4l2.h"
#include "tests/common/camera_driver.h"

static const struct media_source_wish wish = {
	.path = "v4l2:card=test", .width = WIDTH, .height = HEIGHT, .fps_num = 24, .fps_den = 1
};

static struct media_source *open_good(const struct media_source_wish *w)
{
	struct media_source *source = NULL;
	struct sana_error error = { 0 };

	if (source_v4l2_open_node(w, "/dev/test", &driver_io, &source, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return source;
}

static void open_bad(const char *name)
{
	struct media_source *source = NULL;
	struct sana_error error = { 0 };
	int r = source_v4l2_open_node(&wish, "/dev/test", &driver_io, &source, &error);

	print_message("  %s: %s\n", error.name, error.text);
	assert_true(r < 0);
	assert_int_equal(error.code, r);
	assert_null(source);
	if (name)
		assert_string_equal(error.name, name);
	assert_int_equal(driver.opened, driver.closed);
	assert_int_equal(driver.mapped, driver.unmapped);
	assert_false(driver.streaming);
}

static void close_all(struct media_source *source)
{
	(void)media_source_close(source);
	assert_int_equal(driver.opened, driver.closed);
	assert_int_equal(driver.mapped, driver.unmapped);
	assert_false(driver.streaming);
}

/* ------------------------------------------------------------------------------- good driver */

static void pictures_come(void **state)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;
	int64_t last = 0;

	(void)state;
	driver_reset();
	source = open_good(&wish);
	print_message("%s\n", media_source_info(source)->description);
	assert_true(media_source_info(source)->live);
	assert_int_equal(media_source_info(source)->fps_num, 30);
	/* Nothing has 24: 30 is the slowest that is not below. */
	assert_int_equal(driver.interval.denominator, 30);
	for (int i = 0; i < 50; i++) {
		driver.step = i == 20 ? 4 : 1;
		assert_int_equal(media_source_read(source, &p, &error), 1);
		assert_int_equal(p.format, AV_PIX_FMT_YUYV422);
		assert_int_equal(p.row_bytes[0], 2 * WIDTH + PADDING);
		assert_int_equal(p.siting, MEDIA_SITING_CENTRE);
		assert_false(p.full_range);
		assert_int_equal(p.matrix, MEDIA_MATRIX_601);
		assert_in_range(p.plane[0][0], 100, 103);
		assert_true(p.capture_ns > last && p.capture_ns <= clock_now_ns());
		last = p.capture_ns;
	}
	print_message("%lld missed, %lld restamped\n", (long long)media_source_info(source)->missed,
		      (long long)media_source_info(source)->restamped);
	assert_int_equal(media_source_info(source)->missed, 3);
	close_all(source);
}

/* Times that are not of our clock, go back or lie ahead are replaced; they always grow. */
static void bad_times_are_replaced(void **state)
{
	static const struct {
		int64_t ns;
		uint32_t flags;
	} bad[] = {
		{ 0, V4L2_BUF_FLAG_TIMESTAMP_UNKNOWN },
		{ 1, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC },
		{ INT64_MAX, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC },
		{ INT64_MIN, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC },
		{ -5, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC },
		{ 0, V4L2_BUF_FLAG_TIMESTAMP_COPY },
	};
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;
	int64_t last = 0;

	(void)state;
	driver_reset();
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	last = p.capture_ns;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver.time_ns = bad[i].ns;
		driver.time_flags = bad[i].flags;
		assert_int_equal(media_source_read(source, &p, &error), 1);
		assert_true(p.capture_ns > last && p.capture_ns <= clock_now_ns());
		assert_true(p.timestamp_ns >= 0);
		last = p.capture_ns;
		assert_int_equal(media_source_info(source)->restamped, i + 1);
	}
	close_all(source);
}

static void damaged_pictures_are_left_out(void **state)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;

	(void)state;
	driver_reset();
	source = open_good(&wish);
	driver.flags = V4L2_BUF_FLAG_ERROR;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(media_source_read(source, &p, &error), -EAGAIN);
		assert_string_equal(error.name, "source.damaged");
		assert_int_equal(error.code, -EAGAIN);
	}
	driver.flags = 0;
	driver.bytesused = BYTES - 1;
	assert_int_equal(media_source_read(source, &p, &error), -EAGAIN);
	print_message("%s\n", error.text);
	/* More than there is: only the buffer is looked at. */
	driver.bytesused = UINT32_MAX;
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.bytesused = 0;
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(media_source_info(source)->damaged, 21);
	close_all(source);
}

/* -------------------------------------------------------------------------------- the choice */

struct choice {
	struct mode modes[8];
	int width, height, fps;
	struct mode wanted;
};

static void choices_follow_the_rules(void **state)
{
	static const struct choice choices[] = {
		/* USB 2: 720p30 only as MJPEG. */
		{ { { V4L2_PIX_FMT_YUYV, 640, 480, 30 },
		    { V4L2_PIX_FMT_YUYV, 1280, 720, 10 },
		    { V4L2_PIX_FMT_MJPEG, 1280, 720, 30 },
		    { V4L2_PIX_FMT_MJPEG, 1920, 1080, 30 } },
		  1280,
		  704,
		  24,
		  { V4L2_PIX_FMT_MJPEG, 1280, 720, 30 } },
		/* Cheaper at the same size and rate. */
		{ { { V4L2_PIX_FMT_MJPEG, 640, 360, 30 },
		    { V4L2_PIX_FMT_YUYV, 640, 360, 30 },
		    { V4L2_PIX_FMT_NV12, 640, 360, 30 } },
		  256,
		  144,
		  24,
		  { V4L2_PIX_FMT_NV12, 640, 360, 30 } },
		/* The smallest that covers, not the largest. */
		{ { { V4L2_PIX_FMT_YUYV, 1920, 1080, 30 },
		    { V4L2_PIX_FMT_YUYV, 320, 240, 30 },
		    { V4L2_PIX_FMT_YUYV, 160, 120, 30 } },
		  256,
		  144,
		  24,
		  { V4L2_PIX_FMT_YUYV, 320, 240, 30 } },
		/* Nothing covers: the largest. */
		{ { { V4L2_PIX_FMT_YUYV, 320, 240, 30 }, { V4L2_PIX_FMT_YUYV, 640, 480, 30 } },
		  1280,
		  704,
		  24,
		  { V4L2_PIX_FMT_YUYV, 640, 480, 30 } },
		/* Nothing is fast enough: the fastest. */
		{ { { V4L2_PIX_FMT_YUYV, 1280, 720, 10 }, { V4L2_PIX_FMT_YUYV, 640, 480, 15 } },
		  1280,
		  704,
		  24,
		  { V4L2_PIX_FMT_YUYV, 640, 480, 15 } },
		/* Unknown formats are left alone. */
		{ { { V4L2_PIX_FMT_H264, 1280, 720, 30 }, { V4L2_PIX_FMT_UYVY, 640, 480, 30 } },
		  1280,
		  704,
		  24,
		  { V4L2_PIX_FMT_UYVY, 640, 480, 30 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
		const struct choice *c = &choices[i];
		struct media_source_wish w = wish;
		struct media_source *source = NULL;

		driver_reset();
		driver.modes = c->modes;
		driver.length =
			UINT32_MAX; /* no memory is behind it: opening fails after the choice */
		driver.fail_request = VIDIOC_REQBUFS;
		driver.fail_errno = EIO;
		w.width = c->width;
		w.height = c->height;
		w.fps_num = c->fps;
		assert_true(source_v4l2_open_node(&w, "/dev/test", &driver_io, &source, NULL) < 0);
		print_message("%dx%d at %d: %.4s %ux%u at %u\n", c->width, c->height, c->fps,
			      (const char *)&driver.set.pixelformat, driver.set.width,
			      driver.set.height, driver.interval.denominator);
		assert_int_equal(driver.set.pixelformat, c->wanted.fourcc);
		assert_int_equal(driver.set.width, c->wanted.width);
		assert_int_equal(driver.set.height, c->wanted.height);
		assert_int_equal(driver.interval.denominator, c->wanted.fps);
	}
}

static void a_wish_may_name_the_format(void **state)
{
	static const struct mode modes[] = { { V4L2_PIX_FMT_NV12, WIDTH, HEIGHT, 30 },
					     { V4L2_PIX_FMT_YUYV, WIDTH, HEIGHT, 30 },
					     { 0 } };
	struct media_source_wish w = wish;
	struct media_source *source;
	struct media_picture p;
	struct sana_error error;

	(void)state;
	driver_reset();
	driver.modes = modes;
	w.pixel_format = "yuyv";
	w.matrix = "709";
	w.range = "full";
	source = open_good(&w);
	assert_int_equal(driver.set.pixelformat, V4L2_PIX_FMT_YUYV);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(p.matrix, MEDIA_MATRIX_709);
	assert_true(p.full_range);
	close_all(source);
	w.range = "half";
	assert_int_equal(source_v4l2_open_node(&w, "/dev/test", &driver_io, &source, &error),
			 -EINVAL);
	w.range = NULL;
	w.matrix = "2100";
	assert_int_equal(source_v4l2_open_node(&w, "/dev/test", &driver_io, &source, &error),
			 -EINVAL);
	w.matrix = NULL;
	w.pixel_format = "h264";
	assert_int_equal(source_v4l2_open_node(&w, "/dev/test", &driver_io, &source, &error),
			 -EINVAL);
	w.pixel_format = "uyvy";
	assert_int_equal(source_v4l2_open_node(&w, "/dev/test", &driver_io, &source, &error),
			 -ENOTSUP);
	print_message("%s\n", error.text);
	assert_int_equal(driver.opened, driver.closed);
}

/* ----------------------------------------------------------------------------- bad drivers */

static void nodes_are_checked(void **state)
{
	static const struct {
		int code;
		const char *name;
	} opens[] = {
		{ EACCES, "source.permission" }, { EPERM, "source.permission" },
		{ EBUSY, "source.busy" },	 { ENOENT, "source.no-device" },
		{ ENODEV, "source.no-device" },	 { ENXIO, "source.no-device" },
		{ EIO, "source.failed" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(opens); i++) {
		driver_reset();
		driver.open_errno = opens[i].code;
		open_bad(opens[i].name);
	}
	driver_reset();
	driver.caps = V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING;
	open_bad("source.format");
	driver_reset();
	driver.caps = V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_STREAMING;
	open_bad("source.format");
	driver_reset();
	driver.caps = V4L2_CAP_VIDEO_CAPTURE;
	open_bad("source.format");
}

/* Each ioctl fails in each way: a name, and nothing stays open, mapped or streaming. */
static void every_ioctl_may_fail(void **state)
{
	static const unsigned long requests[] = { VIDIOC_QUERYCAP, VIDIOC_ENUM_FMT, VIDIOC_S_FMT,
						  VIDIOC_REQBUFS,  VIDIOC_QUERYBUF, VIDIOC_QBUF,
						  VIDIOC_STREAMON };
	static const int codes[] = { EIO, ENODEV, EINVAL, EBUSY, ENOMEM, ENOTTY, ENOSPC, ENOLINK };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		for (size_t k = 0; k < ARRAY_SIZE(codes); k++)
			for (int after = 0; after < (i == 4 || i == 5 ? 3 : 1); after++) {
				driver_reset();
				driver.fail_request = requests[i];
				driver.fail_errno = codes[k];
				driver.fail_after = after;
				open_bad(NULL);
			}
	driver_reset();
	driver.fail_request = VIDIOC_S_FMT;
	driver.fail_errno = EBUSY;
	open_bad("source.busy");
	driver_reset();
	driver.fail_request = VIDIOC_STREAMON;
	driver.fail_errno = ENOSPC;
	open_bad("source.busy");
	driver_reset();
	driver.fail_request = VIDIOC_STREAMON;
	driver.fail_errno = ENOLINK;
	open_bad("source.no-signal");
	driver_reset();
	driver.fail_request = VIDIOC_REQBUFS;
	driver.fail_errno = EINVAL;
	open_bad("source.buffer");
}

static void impossible_formats_are_refused(void **state)
{
	static const struct v4l2_pix_format bad[] = {
		{ .pixelformat = V4L2_PIX_FMT_H264 },
		{ .pixelformat = V4L2_PIX_FMT_NV12 }, /* not what was asked for */
		{ .width = UINT32_MAX },
		{ .width = 63 }, /* chroma is for pairs */
		{ .width = 16386, .bytesperline = 40000, .sizeimage = 40000 * HEIGHT },
		{ .height = UINT32_MAX },
		{ .bytesperline = 2 * WIDTH - 1 },
		{ .bytesperline = UINT32_MAX },
		{ .bytesperline = 0x80000000 },
		{ .sizeimage = BYTES - 1 },
		{ .field = V4L2_FIELD_ALTERNATE },
		{ .field = V4L2_FIELD_TOP },
		{ .ycbcr_enc = V4L2_YCBCR_ENC_BT2020_CONST_LUM },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_reset();
		driver.pix = bad[i];
		open_bad("source.format");
	}
	/* Buffers that do not hold what was announced, or none at all. */
	driver_reset();
	driver.length = BYTES - 1;
	open_bad("source.buffer");
	for (unsigned int count = 0; count < 2; count++) {
		driver_reset();
		driver.buffers = count;
		open_bad("source.buffer");
	}
}

static void strange_formats_are_taken(void **state)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;

	(void)state;
	/* More buffers than anyone needs, lists without an end, no rates. */
	driver_reset();
	driver.buffers = 1000;
	driver.endless = true;
	source = open_good(&wish);
	print_message("%d calls, %d mapped\n", driver.calls, driver.mapped);
	assert_int_equal(driver.mapped, 32);
	close_all(source);
	/* Another size than asked for, without padding told, JPEG colours. */
	driver_reset();
	driver.pix.width = 32;
	driver.pix.bytesperline = 0;
	driver.pix.colorspace = V4L2_COLORSPACE_JPEG;
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(p.width, 32);
	assert_true(p.full_range);
	close_all(source);
	/* HD colours. */
	driver_reset();
	driver.pix.colorspace = V4L2_COLORSPACE_REC709;
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(p.matrix, MEDIA_MATRIX_709);
	assert_false(p.full_range);
	close_all(source);
}

/* RGB has all levels, unless the driver, or the user, says otherwise. */
static void rgb_says_its_range(void **state)
{
	static const struct {
		uint32_t quantization;
		const char *range;
		bool full;
	} rows[] = {
		{ V4L2_QUANTIZATION_DEFAULT, NULL, true },
		{ V4L2_QUANTIZATION_FULL_RANGE, NULL, true },
		{ V4L2_QUANTIZATION_LIM_RANGE, NULL, false },
		{ V4L2_QUANTIZATION_LIM_RANGE, "full", true },
		{ V4L2_QUANTIZATION_DEFAULT, "limited", false },
	};
	static const struct mode modes[] = { { V4L2_PIX_FMT_RGB24, WIDTH, HEIGHT, 30 }, { 0 } };
	struct media_source_wish w = wish;
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		driver_reset();
		driver.modes = modes;
		driver.pix.bytesperline = 3 * WIDTH;
		driver.pix.sizeimage = driver.length = driver.bytesused = 3 * WIDTH * HEIGHT;
		driver.pix.quantization = rows[i].quantization;
		w.range = rows[i].range;
		source = open_good(&w);
		assert_int_equal(media_source_read(source, &p, &error), 1);
		assert_int_equal(p.format, AV_PIX_FMT_RGB24);
		assert_int_equal(p.full_range, rows[i].full);
		close_all(source);
	}
}

static void read_bad(const char *name, int code)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error = { 0 };
	const struct driver keep = driver;
	int r;

	driver_reset();
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.index = keep.index;
	driver.hangs_up = keep.hangs_up;
	driver.silent = keep.silent;
	driver.fail_request = keep.fail_request;
	driver.fail_errno = keep.fail_errno;
	r = media_source_read(source, &p, &error);
	print_message("  %s: %s\n", error.name, error.text);
	assert_int_equal(r, code);
	assert_string_equal(error.name, name);
	driver.fail_errno = 0;
	close_all(source);
}

static void streams_that_break_have_names(void **state)
{
	static const struct {
		unsigned long request;
		int code;
		const char *name;
	} failures[] = {
		{ VIDIOC_DQBUF, EIO, "source.failed" },
		{ VIDIOC_QBUF, EIO, "source.failed" },
		{ VIDIOC_DQBUF, ENODEV, "source.lost" },
		{ VIDIOC_DQBUF, EINVAL, "source.protocol" },
		{ VIDIOC_QBUF, ENODEV, "source.lost" },
		{ VIDIOC_QBUF, EINVAL, "source.buffer" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		driver_reset();
		driver.fail_request = failures[i].request;
		driver.fail_errno = failures[i].code;
		read_bad(failures[i].name, -failures[i].code);
	}
	driver_reset();
	driver.index = 4; /* there are four */
	read_bad("source.protocol", -EPROTO);
	driver_reset();
	driver.index = 1 << 30;
	read_bad("source.protocol", -EPROTO);
	driver_reset();
	driver.hangs_up = true;
	read_bad("source.failed", -EIO);
	driver_reset();
	driver.silent = true;
	read_bad("source.stalled", -ETIMEDOUT);
}

static void a_buffer_is_not_given_twice(void **state)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;

	(void)state;
	driver_reset();
	source = open_good(&wish);
	driver.index = 2;
	/* It goes back with the next read, so once more is right … */
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.index = 1;
	driver.fail_request = VIDIOC_QBUF;
	driver.fail_errno = EIO;
	driver.fail_after = 1; /* 2 goes back, 1 does not */
	assert_int_equal(media_source_read(source, &p, &error), 1);
	assert_int_equal(media_source_read(source, &p, &error), -EIO);
	driver.fail_errno = 0;
	/* … and a buffer that the driver does not have is none. */
	assert_int_equal(media_source_read(source, &p, &error), -EPROTO);
	print_message("%s\n", error.text);
	close_all(source);
}

/* An input with a signal: lost, back, back with another size, unplugged. */
static void signals_come_and_go(void **state)
{
	struct media_picture p;
	struct media_source *source;
	struct sana_error error = { 0 };
	int64_t start;
	int calls;

	(void)state;
	driver_reset();
	driver.digital = driver.no_signal = true;
	open_bad("source.no-signal");
	driver_reset();
	driver.digital = true;
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	/* Pictures that go on coming are noise. */
	driver.no_signal = driver.event = true;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(media_source_read(source, &p, &error), -EAGAIN);
		assert_string_equal(error.name, "source.no-signal");
	}
	driver.no_signal = false;
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.event = true; /* the same signal as before */
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.event = true;
	driver.signal = 1920;
	assert_int_equal(media_source_read(source, &p, &error), -ESTALE);
	assert_string_equal(error.name, "source.changed");
	close_all(source);
	driver_reset();
	driver.digital = true;
	source = open_good(&wish);
	assert_int_equal(media_source_read(source, &p, &error), 1);
	driver.gone = true;
	start = clock_now_ns();
	calls = driver.calls;
	/* The buffer that goes back is the first to notice. */
	assert_int_equal(media_source_read(source, &p, &error), -ENODEV);
	assert_string_equal(error.name, "source.lost");
	/* And so is the wait. */
	assert_int_equal(media_source_read(source, &p, &error), -ENODEV);
	assert_string_equal(error.name, "source.lost");
	print_message("unplugged: noticed after %.1f ms and %d calls\n",
		      (double)(clock_now_ns() - start) / 1e6, driver.calls - calls);
	assert_true(driver.calls - calls < 16);
	driver.gone = false;
	close_all(source);
}

/* -------------------------------------------------------------------------------- stopping */

static void *stop_later(void *context)
{
	const uint64_t one = 1;

	(void)poll(NULL, 0, 100);
	(void)!write(*(int *)context, &one, sizeof(one));
	return NULL;
}

static bool always(void *context)
{
	(void)context;
	return true;
}

static void reading_can_be_stopped(void **state)
{
	struct media_source_wish w = wish;
	struct media_picture p;
	struct media_source *source;
	struct sana_error error;
	int64_t start;
	pthread_t thread;

	(void)state;
	driver_reset();
	driver.silent = true;
	w.stop_fd = eventfd(0, EFD_CLOEXEC);
	assert_true(w.stop_fd > 0);
	source = open_good(&w);
	start = clock_now_ns();
	assert_int_equal(pthread_create(&thread, NULL, stop_later, &w.stop_fd), 0);
	assert_int_equal(media_source_read(source, &p, &error), -EINTR);
	assert_string_equal(error.name, "source.interrupted");
	print_message("stopped after %.0f ms\n", (double)(clock_now_ns() - start) / 1e6);
	assert_true(clock_now_ns() - start < CLOCK_SECOND_NS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	/* It stays stopped. */
	assert_int_equal(media_source_read(source, &p, &error), -EINTR);
	close_all(source);
	(void)close(w.stop_fd);
	w.stop_fd = 0;
	w.stopped = always;
	source = open_good(&w);
	assert_int_equal(media_source_read(source, &p, &error), -EINTR);
	close_all(source);
}

static void identities_are_checked(void **state)
{
	static const char *const bad[] = {
		"",	     "v4l2:", "/dev/video0",  "v4l2:by-id/../../etc",
		"loopback:", "kms:",  "v4l2:number=0"
	};
	struct media_source *source = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct media_source_wish w = { .path = bad[i] };
		struct sana_error error;

		assert_int_equal(source_v4l2_open(&w, &source, &error), -EINVAL);
		assert_string_equal(error.name, "device.identity");
	}
	assert_int_equal(source_v4l2_open(&(struct media_source_wish){ .path = "v4l2:card=none?" },
					  &source, NULL),
			 -ENODEV);
	assert_null(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pictures_come),
		cmocka_unit_test(bad_times_are_replaced),
		cmocka_unit_test(damaged_pictures_are_left_out),
		cmocka_unit_test(choices_follow_the_rules),
		cmocka_unit_test(a_wish_may_name_the_format),
		cmocka_unit_test(rgb_says_its_range),
		cmocka_unit_test(nodes_are_checked),
		cmocka_unit_test(every_ioctl_may_fail),
		cmocka_unit_test(impossible_formats_are_refused),
		cmocka_unit_test(strange_formats_are_taken),
		cmocka_unit_test(streams_that_break_have_names),
		cmocka_unit_test(a_buffer_is_not_given_twice),
		cmocka_unit_test(signals_come_and_go),
		cmocka_unit_test(reading_can_be_stopped),
		cmocka_unit_test(identities_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
