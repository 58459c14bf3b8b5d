/* A driver that does what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/common/camera_driver.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

enum { CAMERA_FD = 1000 };

struct driver driver;

static const struct mode plain[] = { { V4L2_PIX_FMT_YUYV, WIDTH, HEIGHT, 30 }, { 0 } };

void driver_reset(void)
{
	memset(&driver, 0, sizeof(driver));
	driver.modes = plain;
	driver.caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
	driver.buffers = 4;
	driver.length = BYTES;
	driver.index = -1;
	driver.bytesused = BYTES;
	driver.step = 1;
	driver.time_flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
	for (int i = 0; i < 32; i++)
		memset(driver.memory[i], 100 + i, sizeof(driver.memory[i]));
}

static int fake_open(const char *path, int flags)
{
	(void)path;
	(void)flags;
	if (driver.open_errno) {
		errno = driver.open_errno;
		return -1;
	}
	driver.opened++;
	return CAMERA_FD;
}

static int fake_close(int fd)
{
	assert_int_equal(fd, CAMERA_FD);
	driver.closed++;
	return 0;
}

static void *fake_map(size_t bytes, int fd, int64_t offset)
{
	assert_int_equal(fd, CAMERA_FD);
	assert_true(bytes <= sizeof(driver.memory[0]) && offset >= 0 && offset < 32);
	driver.mapped++;
	return driver.memory[offset];
}

static int fake_unmap(void *memory, size_t bytes)
{
	(void)memory;
	(void)bytes;
	driver.unmapped++;
	return 0;
}

static int fake_poll(struct pollfd *fds, unsigned long count, int timeout_ms)
{
	struct pollfd *camera = &fds[0];
	int r;

	assert_int_equal(camera->fd, CAMERA_FD);
	camera->revents = driver.hangs_up ? POLLERR | POLLHUP : driver.silent ? 0 : POLLIN;
	/* As the kernel's core does it. */
	if (driver.gone)
		camera->revents = POLLERR | POLLHUP | (camera->events & POLLPRI);
	else if (driver.event)
		camera->revents |= camera->events & POLLPRI;
	if (camera->revents)
		return 1;
	camera->fd = -1;
	r = poll(fds, count, timeout_ms);
	camera->fd = CAMERA_FD;
	return r;
}

static const struct mode *mode_number(uint32_t index)
{
	const struct mode *m = driver.modes;

	while (index > 0 && m->fourcc) {
		m++;
		index--;
	}
	return m->fourcc ? m : driver.endless ? driver.modes : NULL;
}

static int enum_format(struct v4l2_fmtdesc *e)
{
	const struct mode *m = mode_number(e->index);

	e->pixelformat = m ? m->fourcc : 0;
	return m ? 0 : -EINVAL;
}

/* The n-th mode of one format. */
static int enum_size(struct v4l2_frmsizeenum *e)
{
	uint32_t n = 0;

	for (const struct mode *m = driver.modes; m->fourcc; m++)
		if (m->fourcc == e->pixel_format && (n++ == e->index || driver.endless)) {
			e->type = driver.stepwise ? V4L2_FRMSIZE_TYPE_STEPWISE :
						    V4L2_FRMSIZE_TYPE_DISCRETE;
			if (driver.stepwise)
				e->stepwise =
					(struct v4l2_frmsize_stepwise){ 16, 4096, 2, 16, 4096, 2 };
			else
				e->discrete = (struct v4l2_frmsize_discrete){ (uint32_t)m->width,
									      (uint32_t)m->height };
			return 0;
		}
	return -EINVAL;
}

static int enum_interval(struct v4l2_frmivalenum *e)
{
	for (const struct mode *m = driver.modes; m->fourcc; m++)
		if (m->fourcc == e->pixel_format && (driver.endless || e->index == 0) &&
		    (driver.stepwise ||
		     (m->width == (int)e->width && m->height == (int)e->height))) {
			e->type = V4L2_FRMIVAL_TYPE_DISCRETE;
			e->discrete = (struct v4l2_fract){ m->fps ? 1 : 0, (uint32_t)m->fps };
			return 0;
		}
	return -EINVAL;
}

static int set_format(struct v4l2_format *f)
{
	struct v4l2_pix_format *p = &f->fmt.pix;
	const struct v4l2_pix_format *o = &driver.pix;

	assert_int_equal(p->priv, V4L2_PIX_FMT_PRIV_MAGIC);
	p->bytesperline = 2 * p->width + PADDING;
	p->sizeimage = p->bytesperline * p->height * 3 / 2;
	p->field = o->field ? o->field : p->field;
	p->width = o->width ? o->width : p->width;
	p->height = o->height ? o->height : p->height;
	p->pixelformat = o->pixelformat ? o->pixelformat : p->pixelformat;
	p->bytesperline = o->bytesperline ? o->bytesperline : p->bytesperline;
	p->sizeimage = o->sizeimage ? o->sizeimage : p->sizeimage;
	p->colorspace = o->colorspace;
	p->ycbcr_enc = o->ycbcr_enc;
	p->quantization = o->quantization;
	driver.set = *p;
	return 0;
}

static int take_buffer(struct v4l2_buffer *b)
{
	int index = driver.index;
	const int64_t ns = driver.time_ns ? driver.time_ns : clock_now_ns();

	if (driver.hangs_up || driver.silent)
		return -EAGAIN;
	for (int i = 0; i < driver.count && index < 0; i++)
		if (driver.queued[i])
			index = i;
	assert_true(index >= 0); /* a source that keeps all buffers starves */
	if (index < 32)
		driver.queued[index] = 0;
	b->index = (uint32_t)index;
	b->bytesused = driver.bytesused;
	b->flags = driver.flags | driver.time_flags;
	b->sequence = driver.sequence;
	driver.sequence += driver.step;
	b->timestamp.tv_sec = ns / CLOCK_SECOND_NS;
	b->timestamp.tv_usec = ns % CLOCK_SECOND_NS / 1000;
	return 0;
}

static int digital_answer(unsigned long request, void *argument)
{
	struct v4l2_input *input = argument;
	struct v4l2_dv_timings *timings = argument;

	switch (request) {
	case VIDIOC_G_INPUT:
		*(int *)argument = 0;
		return 0;
	case VIDIOC_ENUMINPUT:
		input->capabilities = V4L2_IN_CAP_DV_TIMINGS;
		input->status = driver.no_signal ? V4L2_IN_ST_NO_SIGNAL : 0;
		return 0;
	case VIDIOC_QUERY_DV_TIMINGS:
		timings->bt.width = driver.signal ? driver.signal : WIDTH;
		timings->bt.height = HEIGHT;
		return driver.no_signal ? -ENOLINK : 0;
	case VIDIOC_S_DV_TIMINGS:
	case VIDIOC_SUBSCRIBE_EVENT:
		return 0;
	case VIDIOC_DQEVENT:
		if (!driver.event)
			return -ENOENT;
		driver.event = false;
		return 0;
	}
	return -ENOTTY;
}

static int answer(unsigned long request, void *argument)
{
	struct v4l2_capability *cap = argument;
	struct v4l2_requestbuffers *request_buffers = argument;
	struct v4l2_buffer *b = argument;
	struct v4l2_streamparm *parm = argument;

	switch (request) {
	case VIDIOC_QUERYCAP:
		memset(cap, 'x', sizeof(*cap)); /* strings without an end */
		cap->capabilities = driver.caps | V4L2_CAP_DEVICE_CAPS;
		cap->device_caps = driver.caps;
		return 0;
	case VIDIOC_ENUM_FMT:
		return enum_format(argument);
	case VIDIOC_ENUM_FRAMESIZES:
		return enum_size(argument);
	case VIDIOC_ENUM_FRAMEINTERVALS:
		return enum_interval(argument);
	case VIDIOC_S_FMT:
		return set_format(argument);
	case VIDIOC_G_PARM:
		parm->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
		return 0;
	case VIDIOC_S_PARM:
		driver.interval = parm->parm.capture.timeperframe;
		return 0;
	case VIDIOC_REQBUFS:
		memset(driver.queued, 0, sizeof(driver.queued));
		if (!request_buffers->count)
			return 0;
		request_buffers->count = driver.buffers;
		driver.count = (int)MIN_OF(driver.buffers, 32u);
		return 0;
	case VIDIOC_QUERYBUF:
		b->length = driver.length;
		b->m.offset = b->index;
		return 0;
	case VIDIOC_QBUF:
		assert_true(b->index < 32 && !driver.queued[b->index]);
		driver.queued[b->index] = 1;
		return 0;
	case VIDIOC_DQBUF:
		return take_buffer(b);
	case VIDIOC_STREAMON:
		driver.streaming = true;
		return 0;
	case VIDIOC_STREAMOFF:
		driver.streaming = false;
		return 0;
	}
	return driver.digital ? digital_answer(request, argument) : -ENOTTY;
}

static int fake_ioctl(int fd, unsigned long request, void *argument)
{
	int r;

	assert_int_equal(fd, CAMERA_FD);
	driver.calls++;
	assert_true(driver.calls < 200000); /* lists without an end have to end */
	if (request == driver.fail_request && driver.fail_errno && driver.fail_after-- <= 0)
		r = -driver.fail_errno;
	else if (driver.gone)
		r = -ENODEV;
	else
		r = answer(request, argument);
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : 0;
}

const struct source_v4l2_io driver_io = { fake_open, fake_close, fake_ioctl,
					  fake_map,  fake_unmap, fake_poll };
