/* Names of devices, events, modes, formats of virtual cameras, the saved console: no device needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"
#include "daemon/device.h"
#include "daemon/hotplug.h"
#include "daemon/sink_kms.h"
#include "daemon/sink_kms_card.h"
#include "daemon/sink_loopback.h"
#include "daemon/sink_loopback_format.h"
#include "daemon/sink_mode.h"

static void identities_are_parsed(void **state)
{
	static const struct {
		const char *text;
		enum device_kind kind; /* INVALID: refused */
		const char *name, *path;
	} rows[] = {
		{ "v4l2:by-id/usb-Cam_1234-video-index0", DEVICE_BY_ID, "usb-Cam_1234-video-index0",
		  "" },
		{ "v4l2:by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0", DEVICE_BY_PATH,
		  "pci-0000:00:14.0-usb-0:1:1.0-video-index0", "" },
		{ "v4l2:card=HD Webcam: HD Webcam", DEVICE_CARD, "HD Webcam: HD Webcam", "" },
		{ "v4l2:card=Kamera/Büro", DEVICE_CARD, "Kamera/Büro", "" },
		{ "loopback:label=Sana Camera", DEVICE_LOOPBACK, "Sana Camera", "" },
		{ "loopback:", DEVICE_LOOPBACK, "", "" },
		{ "kms:HDMI-A-1", DEVICE_DISPLAY, "HDMI-A-1", "" },
		{ "kms:pci-0000:01:00.0/DP-2", DEVICE_DISPLAY, "DP-2", "pci-0000:01:00.0" },
		{ "kms:", DEVICE_DISPLAY, "", "" },
		{ "", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:by-id/", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:by-id/..", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:by-id/../../mem", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:by-path/a/b", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:card=", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:card=a\nb", DEVICE_KIND_INVALID, "", "" },
		{ "v4l2:card=B\xc3", DEVICE_KIND_INVALID, "", "" },
		{ "/dev/video0", DEVICE_KIND_INVALID, "", "" },
		{ "loopback:20", DEVICE_KIND_INVALID, "", "" },
		{ "loopback:label=", DEVICE_KIND_INVALID, "", "" },
		{ "kms:/DP-1", DEVICE_KIND_INVALID, "", "" },
		{ "kms:a/", DEVICE_KIND_INVALID, "", "" },
		{ "kms:a/b/DP-1", DEVICE_KIND_INVALID, "", "" },
		{ "V4L2:card=x", DEVICE_KIND_INVALID, "", "" },
	};
	char longest[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct device_identity id = { .kind = DEVICE_KIND_INVALID };
		struct sana_error error = { 0 };
		const int r = device_identity_parse(rows[i].text, &id, &error);

		print_message("\"%s\": kind %d\n", rows[i].text, id.kind);
		assert_int_equal(id.kind, rows[i].kind);
		if (rows[i].kind == DEVICE_KIND_INVALID) {
			assert_int_equal(r, -EINVAL);
			assert_string_equal(error.name, "device.identity");
			assert_null(strpbrk(error.text, "\n"));
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(id.name, rows[i].name);
		assert_string_equal(id.path, rows[i].path);
	}
	for (size_t length = 240; length < sizeof(longest); length++) {
		struct device_identity id;

		memset(longest, 'x', length);
		longest[length] = '\0';
		memcpy(longest, "v4l2:card=", 10);
		assert_int_equal(device_identity_parse(longest, &id, NULL),
				 length - 10 < DEVICE_NAME_BYTES ? 0 : -EINVAL);
	}
}

static struct device camera(const char *by_id, const char *by_path, const char *card)
{
	struct device d = { .present = true, .captures = true };

	(void)snprintf(d.by_id, sizeof(d.by_id), "%s", by_id);
	(void)snprintf(d.by_path, sizeof(d.by_path), "%s", by_path);
	(void)snprintf(d.card, sizeof(d.card), "%s", card);
	return d;
}

static struct device display(const char *path, const char *connector, bool present)
{
	struct device d = camera("", path, "i915");

	(void)snprintf(d.connector, sizeof(d.connector), "%s", connector);
	d.present = present;
	return d;
}

/* What a list calls a device finds this device again, and it alone. */
static void lists_give_names_that_match(void **state)
{
	struct device all[] = {
		camera("usb-Cam_1", "pci-1", "Cam"), camera("", "pci-2", "Cam"),
		camera("", "", "Built-in"),	     camera("", "", "Sana"),
		display("pci-0", "HDMI-A-1", false), display("pci-0", "DP-1", true),
		display("pci-1", "DP-1", true),
	};
	static const char *const wanted[] = {
		"v4l2:by-id/usb-Cam_1", "v4l2:by-path/pci-2", "v4l2:card=Built-in",
		"loopback:label=Sana",	"kms:HDMI-A-1",	      "kms:pci-0/DP-1",
		"kms:pci-1/DP-1",
	};
	struct device_identity id;

	(void)state;
	all[3].is_loopback = true;
	device_list_name(all, ARRAY_SIZE(all));
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		print_message("%s: %s\n", all[i].identity, all[i].description);
		assert_string_equal(all[i].identity, wanted[i]);
		assert_int_equal(device_identity_parse(all[i].identity, &id, NULL), 0);
		for (size_t k = 0; k < ARRAY_SIZE(all); k++)
			assert_int_equal(device_matches(&all[k], &id), k == i);
	}
	/* "Any display" is one that has something plugged in; "any virtual camera" is no camera. */
	assert_int_equal(device_identity_parse("kms:", &id, NULL), 0);
	assert_false(device_matches(&all[4], &id));
	assert_true(device_matches(&all[5], &id));
	assert_int_equal(device_identity_parse("loopback:", &id, NULL), 0);
	assert_true(device_matches(&all[3], &id));
	assert_false(device_matches(&all[2], &id));
}

/* Names as drivers give them, cut to 31 bytes wherever that is: what is shown may go over the bus. */
static void raw_names_are_made_texts(void **state)
{
	static const char *const raw[] = {
		"Kamera im Büro über der Tür: Weitwinkel",
		"会議室のカメラと大きな画面",
		"Cam\nera\x1b[2J",
		"B\xfcro",
		"\xff\xfe\xff",
		"𝄞𝄞𝄞𝄞𝄞𝄞𝄞𝄞𝄞",
	};
	int halves = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(raw); i++)
		for (size_t length = 1; length <= MIN_OF(strlen(raw[i]), (size_t)31); length++) {
			struct device all[] = { camera("", "", "Plain"), camera("", "", ""),
						camera("", "", "") };
			struct device_identity id;

			all[2].is_loopback = true;
			for (int d = 1; d < 3; d++)
				memcpy(all[d].card, raw[i], length);
			halves += !utf8_is_line(all[1].card);
			device_list_name(all, ARRAY_SIZE(all));
			for (int d = 1; d < 3; d++) {
				assert_true(utf8_is_line(all[d].identity));
				assert_true(utf8_is_line(all[d].description));
				if (!all[d].card[0])
					continue;
				assert_int_equal(device_identity_parse(all[d].identity, &id, NULL),
						 0);
				assert_true(device_matches(&all[d], &id));
			}
		}
	print_message("%d names that were none\n", halves);
	assert_true(halves > 20);
}

/* A long name is cut for its description. */
static void descriptions_are_cut_between_characters(void **state)
{
	(void)state;
	for (size_t pad = 0; pad < 4; pad++) {
		struct device d = camera("id", "", "");

		memset(d.card, 'x', pad);
		for (size_t n = pad; n + 4 < sizeof(d.card); n += 4)
			memcpy(d.card + n, "𝄞", 4);
		(void)snprintf(d.node, sizeof(d.node), "/dev/video0");
		device_list_name(&d, 1);
		print_message("%s\n", d.description);
		assert_true(utf8_is_line(d.description));
		assert_null(strchr(d.description, '?'));
	}
}

/* On a machine without devices, and with: lists never fail, and say what is there when asked. */
static void lists_of_this_machine(void **state)
{
	static struct media_device devices[DEVICE_LIST_MAX];
	static const char *const names[] = { "cameras", "virtual cameras", "connectors" };
	struct device_identity id;
	struct device found;
	struct sana_error error = { 0 };

	(void)state;
	for (int class = DEVICE_CAMERAS; class <= DEVICE_DISPLAYS; class ++) {
		const int count =
			device_list_media((enum device_class) class, devices, ARRAY_SIZE(devices));

		print_message("%d %s\n", count, names[class]);
		assert_in_range(count, 0, DEVICE_LIST_MAX);
		assert_int_equal(device_list_media((enum device_class) class, devices, 0), 0);
	}
	assert_int_equal(device_identity_parse("v4l2:card=nothing is called this", &id, NULL), 0);
	assert_int_equal(device_find(&id, "source.no-device", &found, &error), -ENODEV);
	assert_string_equal(error.name, "source.no-device");
	print_message("%s\n", error.text);
}

static void hotplug_events(void **state)
{
	static const struct {
		const char *subsystem, *action, *node;
		bool matters, added;
		enum hotplug_kind kind;
	} rows[] = {
		{ "video4linux", "add", "/dev/video0", true, true, HOTPLUG_VIDEO },
		{ "video4linux", "remove", "/dev/video0", true, false, HOTPLUG_VIDEO },
		{ "video4linux", "change", "/dev/video0", false, false, HOTPLUG_VIDEO },
		{ "video4linux", "bind", "/dev/video0", false, false, HOTPLUG_VIDEO },
		{ "video4linux", "add", NULL, false, false, HOTPLUG_VIDEO },
		{ "drm", "change", "/dev/dri/card0", true, true, HOTPLUG_DISPLAY },
		{ "drm", "remove", "/dev/dri/card0", true, false, HOTPLUG_DISPLAY },
		{ "drm", NULL, "/dev/dri/card0", false, false, HOTPLUG_DISPLAY },
		{ NULL, "add", "/dev/video0", true, true, HOTPLUG_VIDEO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct hotplug_event e;
		const bool matters =
			hotplug_event_read(rows[i].subsystem, rows[i].action, rows[i].node, &e);

		assert_int_equal(matters, rows[i].matters);
		if (!matters)
			continue;
		assert_int_equal(e.added, rows[i].added);
		assert_int_equal(e.kind, rows[i].kind);
		assert_string_equal(e.node, rows[i].node);
	}
}

static void modes_are_parsed(void **state)
{
	static const struct {
		const char *text;
		int width, height; /* 0: refused */
		double hz;
	} rows[] = {
		{ "1280x720", 1280, 720, 0 },
		{ "1280x720@60", 1280, 720, 60 },
		{ "1920x1080@59.94", 1920, 1080, 59.94 },
		{ "1920x1080@24.", 1920, 1080, 24 },
		{ "", 0, 0, 0 },
		{ "1280", 0, 0, 0 },
		{ "1280x", 0, 0, 0 },
		{ "x720", 0, 0, 0 },
		{ "0x720", 0, 0, 0 },
		{ "-1x720", 0, 0, 0 },
		{ " 1280x720", 0, 0, 0 },
		{ "1280x720 ", 0, 0, 0 },
		{ "1280x720@", 0, 0, 0 },
		{ "1280x720@x", 0, 0, 0 },
		{ "1280x720@60Hz", 0, 0, 0 },
		{ "99999x720", 0, 0, 0 },
		{ "99999999999999999999x720", 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int width = 0, height = 0;
		double hz = 0;
		const bool good = sink_mode_parse(rows[i].text, &width, &height, &hz);

		print_message("\"%s\": %s %dx%d@%.2f\n", rows[i].text, good ? "good" : "bad", width,
			      height, hz);
		assert_int_equal(good, rows[i].width > 0);
		assert_int_equal(width, rows[i].width);
		assert_int_equal(height, rows[i].height);
		assert_true(fabs(hz - rows[i].hz) < 1e-9);
	}
}

static drmModeModeInfo mode(int width, int height, double hz, uint32_t type, uint32_t flags)
{
	drmModeModeInfo m = { .hdisplay = (uint16_t)width,
			      .vdisplay = (uint16_t)height,
			      .htotal = (uint16_t)(width + 100),
			      .vtotal = (uint16_t)(height + 50),
			      .type = type,
			      .flags = flags };

	m.clock = (uint32_t)(hz * m.htotal * m.vtotal / 1000 + 0.5);
	m.vrefresh = (uint32_t)(hz + 0.5);
	return m;
}

static void modes_are_chosen(void **state)
{
	const drmModeModeInfo modes[] = {
		mode(1920, 1080, 60, 0, DRM_MODE_FLAG_INTERLACE),
		mode(1920, 1080, 50, 0, 0),
		mode(1920, 1080, 59.94, 0, 0),
		mode(1920, 1080, 60, 0, 0),
		mode(2560, 1440, 60, DRM_MODE_TYPE_PREFERRED, 0),
		mode(1280, 720, 60, 0, 0),
	};
	static const struct {
		const char *text;
		int index; /* −1: none */
	} rows[] = {
		{ NULL, 4 },
		{ "1920x1080@60", 3 },
		{ "1920x1080@59.94", 2 },
		{ "1920x1080@50", 1 },
		{ "1920x1080@24", -1 },
		{ "1920x1080", 1 },
		{ "1280x720", 5 },
		{ "640x480", -1 },
		{ "nonsense", -1 },
		{ "1280x720@60.5", 5 },
	};
	const drmModeModeInfo interlaced[] = { mode(720, 576, 50, 0, DRM_MODE_FLAG_INTERLACE) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const drmModeModeInfo *m =
			sink_kms_mode_choose(modes, ARRAY_SIZE(modes), rows[i].text);

		print_message("%s: %d\n", rows[i].text ? rows[i].text : "preferred",
			      m ? (int)(m - modes) : -1);
		assert_int_equal(m ? m - modes : -1, rows[i].index);
	}
	assert_null(sink_kms_mode_choose(modes, 0, NULL));
	assert_ptr_equal(sink_kms_mode_choose(interlaced, 1, NULL), interlaced);
}

/* The file of a screen that a crash left: what is written is read, and nothing else. */
static void consoles_survive(void **state)
{
	struct sink_kms_console c = {
		.crtc = 35, .connector = 36, .framebuffer = 44, .active = true
	};
	struct sink_kms_console back;
	char text[1024];
	int bytes;

	(void)state;
	c.mode = mode(1024, 768, 60, DRM_MODE_TYPE_PREFERRED, 10);
	bytes = sink_kms_console_print(&c, text, sizeof(text));
	print_message("%s", text);
	assert_in_range(bytes, 20, 200);
	assert_true(sink_kms_console_parse(text, &back));
	assert_memory_equal(&back, &c, sizeof(c));
	for (int i = 0; i < bytes - 2; i++) {
		const char keep = text[i];

		text[i] = '\0';
		assert_false(sink_kms_console_parse(text, &back));
		text[i] = keep;
	}
	(void)strcat(text, "1");
	assert_false(sink_kms_console_parse(text, &back));
	assert_false(sink_kms_console_parse("", &back));
	assert_false(sink_kms_console_parse("sana-kms-2 1 2 3", &back));
}

static void virtual_cameras_are_asked(void **state)
{
	struct media_sink_wish w = { .width = 1280, .height = 704, .fps_num = 24, .fps_den = 1 };
	struct sink_loopback_shape s;
	struct sana_error error = { 0 };

	(void)state;
	/* Programs look at usual sizes. */
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), 0);
	assert_int_equal(s.height, 720);
	assert_int_equal(s.bytes, 1280 * 720 * 2);
	assert_int_equal(s.fourcc, V4L2_PIX_FMT_YUYV);
	w.mode = "1280x704";
	w.pixel_format = "nv12";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), 0);
	assert_int_equal(s.height, 704);
	assert_int_equal(s.bytes, 1280 * 704 * 3 / 2);
	/* The rate is for a display of the same configuration; names are written as in V4L2, too. */
	w.mode = "1280x720@30";
	w.pixel_format = "NV12";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), 0);
	assert_int_equal(s.height, 720);
	w.mode = "1280x720p";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), -EINVAL);
	w.mode = "1281x720";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), -EINVAL);
	w.mode = "16384x2";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), -EINVAL);
	w.mode = NULL;
	w.pixel_format = "rgb24";
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), -EINVAL);
	assert_string_equal(error.name, "sink.format");
	w.pixel_format = "yu12";
	w.width = 255;
	w.height = 143;
	assert_int_equal(sink_loopback_shape_wish(&w, &s, &error), 0);
	assert_int_equal(s.width, 256);
	assert_int_equal(s.height, 144);
}

/* What S_FMT gives back: padding behind a picture is the driver's business, within rows it is not. */
static void virtual_cameras_answer(void **state)
{
	static const struct {
		struct v4l2_pix_format pix;
		size_t bytes; /* 0: refused */
	} rows[] = {
		{ { .width = 256,
		    .height = 144,
		    .pixelformat = V4L2_PIX_FMT_YUYV,
		    .bytesperline = 512,
		    .sizeimage = 77824 },
		  73728 },
		{ { .width = 256,
		    .height = 144,
		    .pixelformat = V4L2_PIX_FMT_NV12,
		    .bytesperline = 256 },
		  55296 },
		{ { .width = 256, .height = 144, .pixelformat = V4L2_PIX_FMT_YUV420 }, 55296 },
		{ { .width = 256,
		    .height = 144,
		    .pixelformat = V4L2_PIX_FMT_YUYV,
		    .bytesperline = 576 },
		  0 },
		{ { .width = 256,
		    .height = 144,
		    .pixelformat = V4L2_PIX_FMT_YUYV,
		    .sizeimage = 73727 },
		  0 },
		{ { .width = 256, .height = 144, .pixelformat = V4L2_PIX_FMT_MJPEG }, 0 },
		{ { .width = 255, .height = 144, .pixelformat = V4L2_PIX_FMT_YUYV }, 0 },
		{ { .width = 0, .height = 0, .pixelformat = V4L2_PIX_FMT_YUYV }, 0 },
		{ { .width = UINT32_MAX, .height = 2, .pixelformat = V4L2_PIX_FMT_YUYV }, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct sink_loopback_shape s = { 0 };
		struct sana_error error = { 0 };
		const int r = sink_loopback_shape_read(&rows[i].pix, &s, &error);

		print_message("%ux%u: %zu bytes %s\n", rows[i].pix.width, rows[i].pix.height,
			      s.bytes, error.text);
		assert_int_equal(r == 0, rows[i].bytes > 0);
		assert_int_equal(s.bytes, rows[i].bytes);
	}
}

/* Without the module and without a card: a name and what to type. */
static void missing_sinks_have_names(void **state)
{
	struct media_sink_wish w = { .path = "loopback:label=nothing is called this",
				     .width = 256,
				     .height = 144,
				     .fps_num = 24,
				     .fps_den = 1 };
	struct media_sink *sink = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(sink_loopback_open(&w, &sink, &error), -ENODEV);
	assert_string_equal(error.name, "sink.no-device");
	print_message("%s\n", error.text);
	w.path = "kms:None-1";
	assert_int_equal(sink_kms_open(&w, &sink, &error), -ENODEV);
	assert_string_equal(error.name, "sink.no-device");
	print_message("%s\n", error.text);
	w.path = "loopback:";
	assert_int_equal(sink_kms_open(&w, &sink, &error), -EINVAL);
	w.path = "kms:";
	assert_int_equal(sink_loopback_open(&w, &sink, &error), -EINVAL);
	assert_null(sink);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identities_are_parsed),
		cmocka_unit_test(lists_give_names_that_match),
		cmocka_unit_test(raw_names_are_made_texts),
		cmocka_unit_test(descriptions_are_cut_between_characters),
		cmocka_unit_test(lists_of_this_machine),
		cmocka_unit_test(hotplug_events),
		cmocka_unit_test(modes_are_parsed),
		cmocka_unit_test(modes_are_chosen),
		cmocka_unit_test(consoles_survive),
		cmocka_unit_test(virtual_cameras_are_asked),
		cmocka_unit_test(virtual_cameras_answer),
		cmocka_unit_test(missing_sinks_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
