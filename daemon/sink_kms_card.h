/* Inside of the KMS sink: the objects of a graphics card that show one picture. */
#pragma once

#include "base/error.h"

#include <xf86drm.h>
#include <xf86drmMode.h>

/* Properties that are set, by object. The order is that of the tables in sink_kms_card.c. */
enum sink_kms_property {
	SINK_KMS_CONNECTOR_CRTC,
	SINK_KMS_CRTC_MODE,
	SINK_KMS_CRTC_ACTIVE,
	SINK_KMS_PLANE_FB,
	SINK_KMS_PLANE_CRTC,
	SINK_KMS_SRC_X,
	SINK_KMS_SRC_Y,
	SINK_KMS_SRC_W,
	SINK_KMS_SRC_H,
	SINK_KMS_CRTC_X,
	SINK_KMS_CRTC_Y,
	SINK_KMS_CRTC_W,
	SINK_KMS_CRTC_H,
	SINK_KMS_PROPERTY_COUNT,
};

struct sink_kms_rectangle {
	int x, y, width, height;
};

struct sink_kms_card {
	int fd;
	const char *name; /* for errors: the identity */
	uint32_t connector, crtc, plane;
	uint32_t property[SINK_KMS_PROPERTY_COUNT];
	drmModeModeInfo mode;
	uint32_t mode_blob;
};

/*
 * Which of `count` modes: the wished size at the nearest rate (text "WxH" or "WxH@Hz"), the preferred
 * one for NULL. Interlaced ones only where nothing else is there. NULL: none.
 */
const drmModeModeInfo *sink_kms_mode_choose(const drmModeModeInfo *modes, int count,
					    const char *text);

/* Hz, from the pixel clock: vrefresh is rounded. */
double sink_kms_mode_rate(const drmModeModeInfo *mode);

/* "HDMI-A-1". */
void sink_kms_connector_name(const drmModeConnector *connector, char *ret, size_t bytes);

/* The card is open and ours: atomic, master. */
int sink_kms_card_prepare(struct sink_kms_card *card, struct sana_error *error);

/* Connector, mode, CRTC, plane and properties. `connector` "": the first one with a display. */
int sink_kms_card_find(struct sink_kms_card *card, const char *connector, const char *mode,
		       struct sana_error *error);

/* False once nothing is plugged in. */
bool sink_kms_card_is_connected(const struct sink_kms_card *card);

/* Mode, plane and picture, all at once. `flags`: DRM_MODE_ATOMIC_TEST_ONLY or 0. Waits. */
int sink_kms_card_set(const struct sink_kms_card *card, uint32_t framebuffer,
		      const struct sink_kms_rectangle *source,
		      const struct sink_kms_rectangle *target, uint32_t flags);

/* The next picture at the next blank, with an event that carries `context`. Does not wait. */
int sink_kms_card_flip(const struct sink_kms_card *card, uint32_t framebuffer, void *context);

/* ------------------------------------------------------------------------------------ buffers */

struct sink_kms_buffer {
	uint32_t handle, framebuffer;
	int width, height;
	size_t row_bytes, bytes;
	uint8_t *data;
};

/* XRGB8888, mapped, black. */
int sink_kms_buffer_init(struct sink_kms_buffer *buffer, int fd, int width, int height);

/* Accepts a zeroed struct and may be called twice. */
void sink_kms_buffer_finish(struct sink_kms_buffer *buffer, int fd);

/* ------------------------------------------------------------------------------- the console */

/* What a CRTC showed before. */
struct sink_kms_console {
	uint32_t crtc, connector, framebuffer;
	int x, y;
	bool active;
	drmModeModeInfo mode;
	char path[512]; /* of the state file; "" for none */
};

/* Text of one line, and back; false for anything that is no such line. */
int sink_kms_console_print(const struct sink_kms_console *console, char *text, size_t bytes);
bool sink_kms_console_parse(const char *text, struct sink_kms_console *ret);

/*
 * Reads what is shown now, and keeps it in a file of `directory` (NULL: none). Where a crash left such
 * a file and the screen is dark, the file counts.
 */
void sink_kms_console_save(struct sink_kms_console *console, const struct sink_kms_card *card,
			   const char *connector_name, const char *directory);

/* Shows it again and removes the file. */
void sink_kms_console_restore(const struct sink_kms_console *console, int fd);
