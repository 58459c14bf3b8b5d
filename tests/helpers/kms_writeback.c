/*
 * What a display shows, read back by the hardware (vkms): kms_writeback PID FRAMES X,Y,WxH FILE
 *
 * Only the owner of the card may ask for a writeback, so the card's descriptor is borrowed from the
 * process PID, which goes on showing pictures meanwhile. FILE is as tests/helpers/v4l2_read.c has it,
 * "BGRX" of the rectangle; a picture equal to the one before is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <drm_fourcc.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

/*
 * Jobs are signed in their order. Under load vkms is late, or forgets one for good and signs it when the
 * next is done: so each has a buffer of its own, and says by its pixels that it was done. The hardware
 * writes something else into the byte that is no colour.
 */
enum { TIMEOUT_MS = 30000, FENCE_MS = 1000, JOBS_MAX = 8, UNTOUCHED = 0x5a };

struct job {
	uint32_t framebuffer;
	uint8_t *picture;
	bool waits; /* for its pixels */
};

struct writeback {
	int fd;
	uint32_t connector, crtc;
	uint32_t crtc_property, framebuffer_property, fence_property;
	unsigned int width, height, row_bytes;
	int x, y, cut_width, cut_height;
	struct job job[JOBS_MAX];
	long first_unsigned, next; /* numbers of jobs, modulo JOBS_MAX */
	int fence[JOBS_MAX];
	uint8_t *last;
	FILE *file;
	int late, forgotten;
};

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	(void)fprintf(stderr, "kms_writeback: %s: %s\n", what, strerror(errno));
	return -1;
}

/* The descriptor of the process whose link ends in /dev/dri/cardN. */
static int card_borrow(pid_t pid)
{
	const int process = (int)syscall(SYS_pidfd_open, pid, 0);
	char path[64], link[64];

	if (process < 0)
		return fail("pidfd_open");
	for (int fd = 0; fd < 256; fd++) {
		ssize_t n;

		(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
		n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0)
			continue;
		link[n] = '\0';
		if (strncmp(link, "/dev/dri/card", 13) == 0) {
			fd = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
			return fd < 0 ? fail("pidfd_getfd") : fd;
		}
	}
	errno = ENOENT;
	return fail("the process has no card open");
}

static uint32_t property(int fd, uint32_t object, const char *name)
{
	drmModeObjectProperties *all =
		drmModeObjectGetProperties(fd, object, DRM_MODE_OBJECT_CONNECTOR);
	uint32_t id = 0;

	for (uint32_t i = 0; all && i < all->count_props && !id; i++) {
		drmModePropertyRes *p = drmModeGetProperty(fd, all->props[i]);

		if (p && strcmp(p->name, name) == 0)
			id = p->prop_id;
		drmModeFreeProperty(p);
	}
	drmModeFreeObjectProperties(all);
	return id;
}

/* The first writeback connector, and the CRTC that shows something. */
static int outputs_find(struct writeback *w)
{
	drmModeRes *resources;

	if (drmSetClientCap(w->fd, DRM_CLIENT_CAP_WRITEBACK_CONNECTORS, 1) < 0)
		return fail("writeback connectors");
	resources = drmModeGetResources(w->fd);
	for (int i = 0; resources && i < resources->count_connectors; i++) {
		drmModeConnector *c = drmModeGetConnector(w->fd, resources->connectors[i]);

		if (c && c->connector_type == DRM_MODE_CONNECTOR_WRITEBACK && !w->connector)
			w->connector = c->connector_id;
		drmModeFreeConnector(c);
	}
	for (int i = 0; resources && i < resources->count_crtcs; i++) {
		drmModeCrtc *c = drmModeGetCrtc(w->fd, resources->crtcs[i]);

		if (c && c->mode_valid && !w->crtc) {
			w->crtc = c->crtc_id;
			w->width = c->width;
			w->height = c->height;
		}
		drmModeFreeCrtc(c);
	}
	drmModeFreeResources(resources);
	if (!w->connector || !w->crtc) {
		errno = ENOENT;
		return fail(w->connector ? "no active display" : "no writeback connector");
	}
	w->crtc_property = property(w->fd, w->connector, "CRTC_ID");
	w->framebuffer_property = property(w->fd, w->connector, "WRITEBACK_FB_ID");
	w->fence_property = property(w->fd, w->connector, "WRITEBACK_OUT_FENCE_PTR");
	return 0;
}

static int buffer_make(struct writeback *w, struct job *job)
{
	struct drm_mode_create_dumb make = { .width = w->width, .height = w->height, .bpp = 32 };
	struct drm_mode_map_dumb map = { 0 };
	uint32_t handles[4] = { 0 }, pitches[4] = { 0 }, offsets[4] = { 0 };
	void *memory;

	if (drmIoctl(w->fd, DRM_IOCTL_MODE_CREATE_DUMB, &make) < 0)
		return fail("buffer");
	handles[0] = map.handle = make.handle;
	pitches[0] = w->row_bytes = make.pitch;
	if (drmModeAddFB2(w->fd, w->width, w->height, DRM_FORMAT_XRGB8888, handles, pitches,
			  offsets, &job->framebuffer, 0) < 0 ||
	    drmIoctl(w->fd, DRM_IOCTL_MODE_MAP_DUMB, &map) < 0)
		return fail("frame buffer");
	memory =
		mmap(NULL, make.size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, (off_t)map.offset);
	if (memory == MAP_FAILED)
		return fail("mmap");
	job->picture = memory;
	return 0;
}

static uint8_t *line(const struct writeback *w, const struct job *job, int y)
{
	return job->picture + (size_t)(w->y + y) * w->row_bytes + (size_t)w->x * 4;
}

static void picture_mark(const struct writeback *w, const struct job *job)
{
	for (int y = 0; y < w->cut_height; y++)
		for (int x = 0; x < w->cut_width; x++)
			line(w, job, y)[4 * x + 3] = UNTOUCHED;
}

static bool picture_is_whole(const struct writeback *w, const struct job *job)
{
	for (int y = 0; y < w->cut_height; y++)
		for (int x = 0; x < w->cut_width; x++)
			if (line(w, job, y)[4 * x + 3] == UNTOUCHED)
				return false;
	return true;
}

/* Sends one job. −1 with EBUSY: the owner was just flipping, or too many jobs are under way. */
static int job_send(struct writeback *w)
{
	struct job *job = &w->job[w->next % JOBS_MAX];
	drmModeAtomicReq *request;
	int fence = -1, r;

	if (w->next - w->first_unsigned == JOBS_MAX) {
		errno = EBUSY;
		return -1;
	}
	picture_mark(w, job);
	request = drmModeAtomicAlloc();
	(void)drmModeAtomicAddProperty(request, w->connector, w->crtc_property, w->crtc);
	(void)drmModeAtomicAddProperty(request, w->connector, w->framebuffer_property,
				       job->framebuffer);
	(void)drmModeAtomicAddProperty(request, w->connector, w->fence_property,
				       (uint64_t)(uintptr_t)&fence);
	r = drmModeAtomicCommit(w->fd, request, DRM_MODE_ATOMIC_ALLOW_MODESET, NULL);
	drmModeAtomicFree(request);
	if (r < 0) {
		errno = -r;
		return -1;
	}
	job->waits = true;
	w->fence[w->next++ % JOBS_MAX] = fence;
	return 0;
}

/* Waits for a signature: the picture of the job that was done then. NULL: none yet. */
static const struct job *job_wait(struct writeback *w)
{
	struct pollfd wait = { .fd = w->fence[w->first_unsigned % JOBS_MAX], .events = POLLIN };

	if (poll(&wait, 1, FENCE_MS) != 1) {
		w->late++;
		return NULL;
	}
	(void)close(wait.fd);
	w->first_unsigned++;
	/* Those that are signed already were passed over. */
	for (long n = w->next > JOBS_MAX ? w->next - JOBS_MAX : 0; n < w->next; n++) {
		struct job *job = &w->job[n % JOBS_MAX];

		if (!job->waits)
			continue;
		if (picture_is_whole(w, job)) {
			job->waits = false;
			return job;
		}
	}
	w->forgotten++;
	return NULL;
}

/* Keeps the rectangle if it changed: 1. */
static int picture_keep(struct writeback *w, const struct job *job, int64_t ms)
{
	const size_t row = (size_t)w->cut_width * 4;
	bool changed = false;

	for (int y = 0; y < w->cut_height; y++) {
		const uint8_t *from = line(w, job, y);

		changed |= memcmp(w->last + (size_t)y * row, from, row) != 0;
		memcpy(w->last + (size_t)y * row, from, row);
	}
	if (!changed)
		return 0;
	(void)fprintf(w->file, "%lld %zu\n", (long long)ms, row * (size_t)w->cut_height);
	(void)fwrite(w->last, row, (size_t)w->cut_height, w->file);
	return 1;
}

static int pictures_take(struct writeback *w, int wanted)
{
	const int64_t end = now_ms() + TIMEOUT_MS;
	int got = 0, jobs = 0, busy = 0;

	while (got < wanted && now_ms() < end) {
		const struct job *job;

		if (job_send(w) == 0) {
			jobs++;
		} else if (errno == EBUSY) {
			struct timespec pause = { .tv_nsec = 2000000 };

			busy++;
			(void)nanosleep(&pause, NULL);
		} else {
			return fail("writeback");
		}
		job = w->next > w->first_unsigned ? job_wait(w) : NULL;
		if (job)
			got += picture_keep(w, job, now_ms());
	}
	(void)printf("%d pictures, %d jobs, %d late, %d forgotten, %d times busy, display %ux%u\n",
		     got, jobs, w->late, w->forgotten, busy, w->width, w->height);
	return got < wanted ? -1 : 0;
}

/* As it was: no writeback on the display's CRTC. */
static void detach(const struct writeback *w)
{
	for (int i = 0; i < 100; i++) {
		drmModeAtomicReq *request = drmModeAtomicAlloc();
		int r;

		(void)drmModeAtomicAddProperty(request, w->connector, w->crtc_property, 0);
		r = drmModeAtomicCommit(w->fd, request, DRM_MODE_ATOMIC_ALLOW_MODESET, NULL);
		drmModeAtomicFree(request);
		if (r != -EBUSY)
			return;
		(void)poll(NULL, 0, 5);
	}
}

int main(int argc, char **argv)
{
	struct writeback w = { .fd = -1 };
	int r;

	if (argc != 5 ||
	    sscanf(argv[3], "%d,%d,%dx%d", &w.x, &w.y, &w.cut_width, &w.cut_height) != 4) {
		(void)fprintf(stderr, "usage: kms_writeback PID FRAMES X,Y,WxH FILE\n");
		return 2;
	}
	w.fd = card_borrow(atoi(argv[1]));
	if (w.fd < 0 || outputs_find(&w) < 0)
		return 1;
	for (int i = 0; i < JOBS_MAX; i++)
		if (buffer_make(&w, &w.job[i]) < 0)
			return 1;
	if (w.x < 0 || w.y < 0 || w.x + w.cut_width > (int)w.width ||
	    w.y + w.cut_height > (int)w.height) {
		errno = ERANGE;
		(void)fail("rectangle");
		return 1;
	}
	w.last = calloc((size_t)w.cut_width * (size_t)w.cut_height, 4);
	w.file = fopen(argv[4], "wb");
	if (!w.last || !w.file) {
		(void)fail(argv[4]);
		return 1;
	}
	(void)fprintf(w.file, "BGRX %d %d %d\n", w.cut_width, w.cut_height, w.cut_width * 4);
	r = pictures_take(&w, atoi(argv[2]));
	detach(&w);
	(void)fclose(w.file);
	return r < 0 ? 1 : 0;
}
