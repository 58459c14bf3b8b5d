/* Dumb buffers: memory that a display reads and the processor writes. */
#include "daemon/sink_kms_card.h"

#include "base/util.h"

#include <drm_fourcc.h>
#include <errno.h>
#include <sys/mman.h>

enum { PIXEL_BYTES = 4 };

int sink_kms_buffer_init(struct sink_kms_buffer *buffer, int fd, int width, int height)
{
	struct drm_mode_create_dumb create = {
		.width = (uint32_t)width,
		.height = (uint32_t)height,
		.bpp = 8 * PIXEL_BYTES,
	};
	struct drm_mode_map_dumb map = { 0 };
	void *memory;
	int r;

	*buffer = (struct sink_kms_buffer){ .width = width, .height = height };
	if (drmIoctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &create) < 0)
		return -errno;
	buffer->handle = create.handle;
	buffer->row_bytes = create.pitch;
	buffer->bytes = (size_t)create.size;
	/* The driver's own pitch counts; a size that does not hold it is no buffer. */
	r = create.pitch < (uint32_t)width * PIXEL_BYTES ||
			    create.size < (uint64_t)create.pitch * (uint32_t)height ?
		    -EPROTO :
		    0;
	if (r == 0 && drmModeAddFB2(fd, create.width, create.height, DRM_FORMAT_XRGB8888,
				    (uint32_t[4]){ create.handle }, (uint32_t[4]){ create.pitch },
				    (uint32_t[4]){ 0 }, &buffer->framebuffer, 0) < 0)
		r = -errno;
	map.handle = create.handle;
	if (r == 0 && drmIoctl(fd, DRM_IOCTL_MODE_MAP_DUMB, &map) < 0)
		r = -errno;
	if (r == 0) {
		memory = mmap(NULL, buffer->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			      (off_t)map.offset);
		if (memory == MAP_FAILED)
			r = -errno;
		else
			buffer->data = memory;
	}
	if (r < 0)
		sink_kms_buffer_finish(buffer, fd);
	else
		memset(buffer->data, 0, buffer->bytes);
	return r;
}

void sink_kms_buffer_finish(struct sink_kms_buffer *buffer, int fd)
{
	struct drm_mode_destroy_dumb destroy = { .handle = buffer->handle };

	if (buffer->data)
		(void)munmap(buffer->data, buffer->bytes);
	if (buffer->framebuffer)
		(void)drmModeRmFB(fd, buffer->framebuffer);
	if (buffer->handle)
		(void)drmIoctl(fd, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy);
	*buffer = (struct sink_kms_buffer){ 0 };
}
