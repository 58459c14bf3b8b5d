/*
 * What a screen showed before, and how it comes back.
 *
 * When the last descriptor of a card is closed, also by a crash, the kernel shows its own console
 * again, if it has one there. So the file is for the rest: a screen of another program's making.
 */
#include "daemon/sink_kms_card.h"

#include "base/file.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

static const char magic[] = "sana-kms-1";

enum { LINE_BYTES = 1024 };

int sink_kms_console_print(const struct sink_kms_console *console, char *text, size_t bytes)
{
	const drmModeModeInfo *m = &console->mode;

	return snprintf(text, bytes,
			"%s %u %u %u %d %d %d %u %u %u %u %u %u %u %u %u %u %u %u %u %u\n", magic,
			console->crtc, console->connector, console->framebuffer, console->x,
			console->y, console->active, m->clock, m->hdisplay, m->hsync_start,
			m->hsync_end, m->htotal, m->hskew, m->vdisplay, m->vsync_start,
			m->vsync_end, m->vtotal, m->vscan, m->vrefresh, m->flags, m->type);
}

bool sink_kms_console_parse(const char *text, struct sink_kms_console *ret)
{
	struct sink_kms_console c = { 0 };
	drmModeModeInfo *m = &c.mode;
	int active, end = 0;
	const int fields = sscanf(text,
				  "sana-kms-1 %" SCNu32 " %" SCNu32 " %" SCNu32 " %d %d %d %" SCNu32
				  " %hu %hu %hu %hu %hu %hu %hu %hu %hu %hu %" SCNu32 " %" SCNu32
				  " %" SCNu32 " %n",
				  &c.crtc, &c.connector, &c.framebuffer, &c.x, &c.y, &active,
				  &m->clock, &m->hdisplay, &m->hsync_start, &m->hsync_end,
				  &m->htotal, &m->hskew, &m->vdisplay, &m->vsync_start,
				  &m->vsync_end, &m->vtotal, &m->vscan, &m->vrefresh, &m->flags,
				  &m->type, &end);

	if (fields != 20 || !end || text[end])
		return false;
	c.active = active == 1;
	*ret = c;
	return true;
}

static void console_read(struct sink_kms_console *console, const struct sink_kms_card *card)
{
	drmModeCrtc *crtc = drmModeGetCrtc(card->fd, card->crtc);

	console->crtc = card->crtc;
	console->connector = card->connector;
	if (crtc && crtc->mode_valid && crtc->buffer_id) {
		console->active = true;
		console->framebuffer = crtc->buffer_id;
		console->x = (int)crtc->x;
		console->y = (int)crtc->y;
		console->mode = crtc->mode;
	}
	drmModeFreeCrtc(crtc);
}

static bool file_load(const char *path, struct sink_kms_console *ret)
{
	_cleanup_(freep) char *text = NULL;
	size_t bytes;

	return file_read(path, LINE_BYTES, "sink.state", &text, &bytes, NULL) == 0 &&
	       sink_kms_console_parse(text, ret);
}

/* Whole or not at all: a crash may come at any time. */
static void file_store(const struct sink_kms_console *console)
{
	char text[LINE_BYTES], temporary[sizeof(console->path) + 8];
	const int bytes = sink_kms_console_print(console, text, sizeof(text));
	int fd;

	(void)snprintf(temporary, sizeof(temporary), "%s.new", console->path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	if (write(fd, text, (size_t)bytes) == bytes)
		(void)rename(temporary, console->path);
	(void)close(fd);
}

void sink_kms_console_save(struct sink_kms_console *console, const struct sink_kms_card *card,
			   const char *connector_name, const char *directory)
{
	struct sink_kms_console left;

	*console = (struct sink_kms_console){ 0 };
	console_read(console, card);
	if (!directory)
		return;
	if (snprintf(console->path, sizeof(console->path), "%s/kms-%s.state", directory,
		     connector_name) >= (int)sizeof(console->path)) {
		console->path[0] = '\0';
		return;
	}
	if (!console->active && file_load(console->path, &left) && left.active &&
	    left.crtc == card->crtc && left.connector == card->connector) {
		memcpy(left.path, console->path, sizeof(left.path));
		*console = left;
	}
	file_store(console);
}

void sink_kms_console_restore(const struct sink_kms_console *console, int fd)
{
	uint32_t connector = console->connector;
	drmModeModeInfo mode = console->mode;

	/* Its picture may be gone with its owner: then dark, and the kernel's console if it has one. */
	if (!console->active ||
	    drmModeSetCrtc(fd, console->crtc, console->framebuffer, (uint32_t)console->x,
			   (uint32_t)console->y, &connector, 1, &mode) < 0)
		(void)drmModeSetCrtc(fd, console->crtc, 0, 0, 0, NULL, 0, NULL);
	if (console->path[0])
		(void)unlink(console->path);
}
