/*
 * An independent reader of a camera, as a video call would be one, by V4L2 alone:
 * v4l2_read NODE SECONDS [FILE]
 *
 * Takes the format the device has. One line a frame on stdout: its number, milliseconds of
 * CLOCK_MONOTONIC at its arrival, the driver's sequence number, and a hash of its picture. FILE gets
 * "FOURCC WIDTH HEIGHT ROW_BYTES\n", then for each frame "milliseconds bytes\n" and those bytes
 * (tests/helpers/frames.c reads it). Ends early when the device ends, and at SIGTERM;
 * exits 0 when there was any frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 4, BUFFERS_MAX = 32 };

struct reader {
	int fd, count;
	unsigned char *data[BUFFERS_MAX];
	size_t bytes[BUFFERS_MAX];
	struct v4l2_format format;
	FILE *file;
};

static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	(void)fprintf(stderr, "v4l2_read: %s: %s\n", what, strerror(errno));
	return -1;
}

static int buffers_map(struct reader *r)
{
	struct v4l2_requestbuffers request = {
		.count = BUFFERS,
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};

	if (ioctl(r->fd, VIDIOC_REQBUFS, &request) < 0)
		return fail("VIDIOC_REQBUFS");
	r->count = (int)(request.count < BUFFERS_MAX ? request.count : BUFFERS_MAX);
	for (int i = 0; i < r->count; i++) {
		struct v4l2_buffer b = {
			.index = (unsigned int)i,
			.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
			.memory = V4L2_MEMORY_MMAP,
		};

		if (ioctl(r->fd, VIDIOC_QUERYBUF, &b) < 0)
			return fail("VIDIOC_QUERYBUF");
		r->bytes[i] = b.length;
		r->data[i] = mmap(NULL, b.length, PROT_READ, MAP_SHARED, r->fd, (off_t)b.m.offset);
		if (r->data[i] == MAP_FAILED)
			return fail("mmap");
		if (ioctl(r->fd, VIDIOC_QBUF, &b) < 0)
			return fail("VIDIOC_QBUF");
	}
	return 0;
}

static int reader_start(struct reader *r, const char *node)
{
	struct v4l2_capability capability;
	int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	const struct v4l2_pix_format *pix = &r->format.fmt.pix;

	r->fd = open(node, O_RDWR | O_NONBLOCK);
	if (r->fd < 0)
		return fail(node);
	if (ioctl(r->fd, VIDIOC_QUERYCAP, &capability) < 0)
		return fail("VIDIOC_QUERYCAP");
	if (!(capability.device_caps & V4L2_CAP_VIDEO_CAPTURE)) {
		errno = ENODEV;
		return fail("not a capture device");
	}
	r->format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	if (ioctl(r->fd, VIDIOC_G_FMT, &r->format) < 0 ||
	    ioctl(r->fd, VIDIOC_S_FMT, &r->format) < 0)
		return fail("format");
	if (r->file)
		(void)fprintf(r->file, "%.4s %u %u %u\n", (const char *)&pix->pixelformat,
			      pix->width, pix->height, pix->bytesperline);
	if (buffers_map(r) < 0)
		return -1;
	return ioctl(r->fd, VIDIOC_STREAMON, &type) < 0 ? fail("VIDIOC_STREAMON") : 0;
}

/* Of a picture without what the driver padded it with. */
static size_t picture_bytes(const struct v4l2_pix_format *pix)
{
	const size_t luma = (size_t)pix->bytesperline * pix->height;

	return pix->pixelformat == V4L2_PIX_FMT_YUYV ? luma : luma * 3 / 2;
}

static uint64_t hash(const unsigned char *data, size_t bytes)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a */

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ data[i]) * 1099511628211u;
	return h;
}

/* 1: a frame; 0: none in time; −1: the device ended. */
static int frame_read(struct reader *r, int number, int timeout_ms)
{
	struct v4l2_buffer b = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP };
	struct pollfd wait = { .fd = r->fd, .events = POLLIN };
	size_t bytes = picture_bytes(&r->format.fmt.pix);
	int64_t ms;

	if (poll(&wait, 1, timeout_ms) <= 0)
		return 0;
	if (ioctl(r->fd, VIDIOC_DQBUF, &b) < 0)
		return errno == EAGAIN ? 0 : fail("VIDIOC_DQBUF");
	ms = now_ms();
	if (bytes > r->bytes[b.index])
		bytes = r->bytes[b.index];
	(void)printf("%d %lld %u %016llx\n", number, (long long)ms, b.sequence,
		     (unsigned long long)hash(r->data[b.index], bytes));
	if (r->file) {
		(void)fprintf(r->file, "%lld %zu\n", (long long)ms, bytes);
		(void)fwrite(r->data[b.index], 1, bytes, r->file);
	}
	return ioctl(r->fd, VIDIOC_QBUF, &b) < 0 ? fail("VIDIOC_QBUF") : 1;
}

int main(int argc, char **argv)
{
	struct reader r = { .fd = -1 };
	int64_t end_ms;
	int number = 0, got = 0;

	if (argc < 3 || argc > 4) {
		(void)fprintf(stderr, "usage: v4l2_read NODE SECONDS [FILE]\n");
		return 2;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !(r.file = fopen(argv[3], "wb"))) {
		(void)fail(argv[3]);
		return 1;
	}
	if (reader_start(&r, argv[1]) < 0)
		return 1;
	(void)signal(SIGTERM, end);
	end_ms = now_ms() + (int64_t)(atof(argv[2]) * 1000);
	while (got >= 0 && !ended && now_ms() < end_ms) {
		got = frame_read(&r, number, (int)(end_ms - now_ms()));
		number += got > 0;
	}
	if (r.file && fclose(r.file) != 0)
		number = 0;
	return number > 0 ? 0 : 1;
}
