/* Sources and sinks on real files: what goes in comes out, at its time, under its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <libavutil/log.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "base/util.h"
#include "media/av.h"
#include "media/convert.h"
#include "media/sink.h"
#include "media/source.h"
#include "tests/common/media_clip.h"
#include "tests/common/media_scratch.h"

enum { ALARM_S = 120 }; /* ends a test that waits for ever */
enum { WIDTH = 64, HEIGHT = 48, BYTES = 3 * WIDTH * HEIGHT };

static const int64_t MS_NS = 1000000;
static const int64_t SECOND = 1000000000;

static int setup(void **state)
{
	(void)signal(SIGXFSZ, SIG_IGN);
	return media_scratch_setup(state);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static struct media_source *source_open(const struct media_source_wish *wish)
{
	struct media_source *source = NULL;
	struct sana_error error = { 0 };

	if (media_source_open(wish, &source, &error) < 0)
		fail_msg("%s: %s", wish->path, error.text);
	return source;
}

static struct media_sink *sink_open(const struct media_sink_wish *wish)
{
	struct media_sink *sink = NULL;
	struct sana_error error = { 0 };

	if (media_sink_open(wish, &sink, &error) < 0)
		fail_msg("%s: %s", wish->path, error.text);
	return sink;
}

static struct media_sink_wish sink_wish(const char *path)
{
	return (struct media_sink_wish){ .path = path,
					 .width = WIDTH,
					 .height = HEIGHT,
					 .fps_num = 24,
					 .fps_den = 1,
					 .time_base_num = 1,
					 .time_base_den = 24000,
					 .threads = 1 };
}

/* A picture of one grey, 0 … 255. */
static void sink_put(struct media_sink *sink, int grey, int64_t time_ns, int64_t duration_ns)
{
	struct sana_error error = { 0 };
	uint8_t rgb[BYTES];

	memset(rgb, grey, sizeof(rgb));
	if (media_sink_write(sink, rgb, 3 * WIDTH, time_ns, duration_ns, &error) < 0)
		fail_msg("%s", error.text);
}

static void sink_end(struct media_sink *sink, enum media_finish how)
{
	struct sana_error error = { 0 };

	if (media_sink_finish(sink, how, &error) < 0)
		fail_msg("%s", error.text);
	(void)media_sink_close(sink);
}

/* Writes `frames` greys at 24 frames a second. */
static void clip_write(const struct media_sink_wish *wish, int frames)
{
	struct media_sink *sink = sink_open(wish);

	for (int i = 0; i < frames; i++)
		sink_put(sink, 10 * i, i * SECOND / 24, 0);
	sink_end(sink, MEDIA_FINISH_COMPLETE);
}

struct clip_seen {
	int frames;
	int grey[64]; /* middle of each picture */
	int64_t time_ns[64];
	int64_t duration_ns; /* of the last one */
	int end;	     /* what reading ended with */
	struct sana_error error;
};

/* Reads all pictures, RGB at WIDTH x HEIGHT. */
static struct clip_seen clip_see(const char *path)
{
	const struct media_source_wish wish = { .path = path, .threads = 1 };
	struct media_source *source = source_open(&wish);
	struct media_convert *convert;
	struct media_picture picture;
	struct clip_seen seen = { 0 };
	uint8_t rgb[BYTES];

	assert_int_equal(media_convert_create(WIDTH, HEIGHT, true, &convert, NULL), 0);
	while ((seen.end = media_source_read(source, &picture, &seen.error)) > 0) {
		assert_in_range(seen.frames, 0, 63);
		assert_int_equal(media_convert_run(convert, &picture, rgb, 3 * WIDTH, NULL), 0);
		seen.grey[seen.frames] = rgb[3 * (WIDTH * HEIGHT / 2 + WIDTH / 2)];
		seen.time_ns[seen.frames++] = picture.timestamp_ns;
		seen.duration_ns = picture.duration_ns;
	}
	(void)media_convert_destroy(convert);
	(void)media_source_close(source);
	return seen;
}

/* ------------------------------------------------------------------------------ round trips */

static void lossless_is_lossless(void **state)
{
	const struct media_source_wish pattern = {
		.path = "pattern:",
		.width = WIDTH,
		.height = HEIGHT,
		.duration_ns = SECOND / 2,
	};
	const struct media_source_wish back = { .path = media_scratch_path("a.mkv"), .threads = 1 };
	struct media_sink_wish wish = sink_wish(back.path);
	struct media_picture a, b;
	struct media_source *source = source_open(&pattern), *file;
	struct media_convert *convert;
	struct media_sink *sink;
	uint8_t rgb[BYTES];
	int frames = 0;

	(void)state;
	wish.codec = "ffv1";
	sink = sink_open(&wish);
	while (media_source_read(source, &a, NULL) > 0)
		assert_int_equal(media_sink_write(sink, a.plane[0], (size_t)a.row_bytes[0],
						  a.timestamp_ns, a.duration_ns, NULL),
				 0);
	assert_int_equal(media_sink_info(sink)->frames, 12);
	sink_end(sink, MEDIA_FINISH_COMPLETE);
	(void)media_source_close(source);

	source = source_open(&pattern);
	file = source_open(&back);
	assert_int_equal(media_convert_create(WIDTH, HEIGHT, true, &convert, NULL), 0);
	assert_int_equal(media_source_info(file)->width, WIDTH);
	assert_int_equal(media_source_info(file)->height, HEIGHT);
	for (; media_source_read(source, &a, NULL) > 0; frames++) {
		assert_int_equal(media_source_read(file, &b, NULL), 1);
		assert_int_equal(media_convert_run(convert, &b, rgb, 3 * WIDTH, NULL), 0);
		assert_memory_equal(rgb, a.plane[0], BYTES);
		/* Matroska counts milliseconds. */
		assert_in_range(b.timestamp_ns - a.timestamp_ns + MS_NS, 0, 2 * MS_NS);
	}
	assert_int_equal(media_source_read(file, &b, NULL), 0);
	assert_int_equal(media_source_read(file, &b, NULL), 0);
	print_message("%d frames, all bytes equal\n", frames);
	assert_int_equal(frames, 12);
	(void)media_convert_destroy(convert);
	(void)media_source_close(source);
	(void)media_source_close(file);
}

static void every_container_can_be_read_back(void **state)
{
	static const struct {
		const char *name, *codec;
	} files[] = {
		{ "a.mp4", NULL }, { "b.mp4", "mpeg4" }, { "c.mov", NULL },
		{ "d.m4v", NULL }, { "e.mkv", NULL },	 { "f.webm", NULL },
		{ "g.y4m", NULL }, { "h.mp4", "vp9" },	 { "i.mkv", "mpeg4" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(files[i].name));
		struct clip_seen seen;

		wish.codec = files[i].codec;
		clip_write(&wish, 8);
		seen = clip_see(wish.path);
		print_message("%s: %d frames, greys %d to %d, last at %.3f s\n", files[i].name,
			      seen.frames, seen.grey[0], seen.grey[7],
			      (double)seen.time_ns[7] / 1e9);
		assert_int_equal(seen.end, 0);
		assert_int_equal(seen.frames, 8);
		for (int k = 0; k < 8; k++) {
			assert_in_range(seen.grey[k], MAX_OF(0, 10 * k - 4), 10 * k + 4);
			assert_in_range(seen.time_ns[k] - k * SECOND / 24 + MS_NS, 0, 2 * MS_NS);
		}
	}
}

/* Uneven times are kept to half a tick of the source's clock. */
static void uneven_times_are_kept(void **state)
{
	static const int64_t times_ms[] = { 0, 33, 67, 250, 260, 500, 1100, 1101 };
	const char *from = media_scratch_path("vfr.mkv"), *to = media_scratch_path("vfr.mp4");
	struct media_sink_wish wish = sink_wish(to);
	struct clip_seen seen, again;
	struct media_sink *sink;

	(void)state;
	clip_make(&(struct clip_wish){ .path = from,
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 8,
				       .times_ms = times_ms });
	seen = clip_see(from);
	assert_int_equal(seen.frames, 8);
	wish.time_base_den = 1000;
	sink = sink_open(&wish);
	for (int i = 0; i < seen.frames; i++)
		sink_put(sink, seen.grey[i], seen.time_ns[i], 40 * MS_NS);
	sink_end(sink, MEDIA_FINISH_COMPLETE);
	again = clip_see(to);
	assert_int_equal(again.frames, 8);
	for (int i = 0; i < 8; i++) {
		print_message("%lld ms: %lld ns\n", (long long)times_ms[i],
			      (long long)again.time_ns[i]);
		assert_int_equal(seen.time_ns[i], times_ms[i] * MS_NS);
		assert_int_equal(again.time_ns[i], times_ms[i] * MS_NS);
	}
	assert_int_equal(again.duration_ns, 40 * MS_NS);
}

static void the_same_input_gives_the_same_bytes(void **state)
{
	static const char *const names[] = { "a.mp4", "a.mkv", "a.webm" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(names[i]));
		struct file_map one = { 0 }, two = { 0 };
		char first[256];

		clip_write(&wish, 6);
		(void)snprintf(first, sizeof(first), "%s.first", wish.path);
		assert_int_equal(rename(wish.path, first), 0);
		clip_write(&wish, 6);
		assert_int_equal(file_map(first, "x", &one, NULL), 0);
		assert_int_equal(file_map(wish.path, "x", &two, NULL), 0);
		assert_int_equal(one.size, two.size);
		assert_memory_equal(one.data, two.data, one.size);
		file_unmap(&one);
		file_unmap(&two);
	}
}

static void pictures_come_and_go_by_number(void **state)
{
	static const char *const patterns[] = { "p%03d.png", "j%d.jpg" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(patterns[i]));
		struct clip_seen seen;

		clip_write(&wish, 5);
		seen = clip_see(wish.path);
		print_message("%s: %d frames, last grey %d\n", patterns[i], seen.frames,
			      seen.grey[4]);
		assert_int_equal(seen.frames, 5);
		for (int k = 0; k < 5; k++) {
			assert_in_range(seen.grey[k], MAX_OF(0, 10 * k - 2), 10 * k + 2);
			assert_in_range(seen.time_ns[k] - k * SECOND / 24 + 1000, 0, 2000);
		}
	}
	assert_true(exists(media_scratch_path("p001.png")) &&
		    exists(media_scratch_path("j5.jpg")) &&
		    !exists(media_scratch_path("p006.png")));
}

/* ------------------------------------------------------------------------------------ sound */

static void sound_is_copied(void **state)
{
	static const struct {
		const char *from, *to, *codec;
	} pairs[] = { { "s.mp4", "t.mp4", "aac" },
		      { "s.mkv", "t.mkv", "pcm_s16le" },
		      { "s.mp4", "u.mkv", "aac" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(pairs[i].to));
		struct clip_track from, to;

		wish.audio_path = media_scratch_path(pairs[i].from);
		clip_make(&(struct clip_wish){ .path = wish.audio_path,
					       .codec = "mpeg4",
					       .width = WIDTH,
					       .height = HEIGHT,
					       .frames = 24,
					       .audio = pairs[i].codec,
					       .audio_ms = 1500 });
		clip_write(&wish, 24);
		from = clip_read_track(wish.audio_path, true);
		to = clip_read_track(wish.path, true);
		print_message(
			"%s to %s: %d packets of sound, %d arrived, end at %lld and %lld ms\n",
			pairs[i].from, pairs[i].to, from.packets, to.packets,
			(long long)from.end_ms, (long long)to.end_ms);
		assert_true(from.packets > 10);
		assert_int_equal(to.packets, from.packets);
		assert_int_equal(to.payload, from.payload);
		assert_in_range(to.end_ms, from.end_ms - 2, from.end_ms + 25);
		assert_int_equal(clip_read_track(wish.path, false).packets, 24);
	}
}

/* A run that ends early takes the sound of what it showed. */
static void sound_ends_with_the_picture_when_cut(void **state)
{
	struct media_sink_wish wish = sink_wish(media_scratch_path("cut.mp4"));
	struct media_sink *sink;
	struct clip_track track;

	(void)state;
	wish.audio_path = media_scratch_path("long.mp4");
	clip_make(&(struct clip_wish){ .path = wish.audio_path,
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 50,
				       .audio = "aac",
				       .audio_ms = 2000 });
	sink = sink_open(&wish);
	assert_true(media_sink_info(sink)->audio);
	for (int i = 0; i < 12; i++)
		sink_put(sink, 100, i * SECOND / 24, SECOND / 24);
	sink_end(sink, MEDIA_FINISH_CUT);
	track = clip_read_track(wish.path, true);
	print_message("picture ends at 500 ms, sound at %lld ms\n", (long long)track.end_ms);
	assert_in_range(track.end_ms, 480, 550);
}

static void sound_without_a_place_is_said(void **state)
{
	struct media_sink_wish wish = sink_wish(media_scratch_path("n.webm"));
	struct media_sink *sink;

	(void)state;
	wish.audio_path = media_scratch_path("n.mp4");
	clip_make(&(struct clip_wish){ .path = wish.audio_path,
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 3,
				       .audio = "aac",
				       .audio_ms = 100 });
	sink = sink_open(&wish);
	print_message("%s\n", media_sink_info(sink)->note);
	assert_false(media_sink_info(sink)->audio);
	assert_non_null(strstr(media_sink_info(sink)->note, "aac"));
	(void)media_sink_close(sink);
}

/* --------------------------------------------------------------------------- turned, shaped */

static void phones_are_turned_upright(void **state)
{
	enum { ONE = 1 << 16, UNIT = 1 << 30 };
	/* The matrices phones write, and the corner of the shown picture that is white. */
	static const struct {
		int32_t matrix[9];
		int width, height, white_x, white_y;
	} rows[] = {
		{ { ONE, 0, 0, 0, ONE, 0, 0, 0, UNIT }, 64, 48, 0, 0 },
		{ { 0, ONE, 0, -ONE, 0, 0, 0, 0, UNIT }, 48, 64, 1, 0 },  /* 90 clockwise */
		{ { -ONE, 0, 0, 0, -ONE, 0, 0, 0, UNIT }, 64, 48, 1, 1 }, /* 180 */
		{ { 0, -ONE, 0, ONE, 0, 0, 0, 0, UNIT }, 48, 64, 0, 1 },  /* 270 */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct media_source_wish wish = { .path = media_scratch_path("turned.mp4"),
							.threads = 1 };
		struct media_convert *convert;
		struct media_picture picture;
		struct media_source *source;
		uint8_t rgb[BYTES];

		clip_make(&(struct clip_wish){ .path = wish.path,
					       .codec = "mpeg4",
					       .width = 64,
					       .height = 48,
					       .frames = 2,
					       .matrix = rows[i].matrix });
		source = source_open(&wish);
		print_message("%s\n", media_source_info(source)->description);
		assert_int_equal(media_source_info(source)->width, rows[i].width);
		assert_int_equal(media_source_info(source)->height, rows[i].height);
		assert_int_equal(media_source_read(source, &picture, NULL), 1);
		assert_int_equal(media_convert_create(rows[i].width, rows[i].height, true, &convert,
						      NULL),
				 0);
		assert_int_equal(media_convert_run(convert, &picture, rgb,
						   3 * (size_t)rows[i].width, NULL),
				 0);
		for (int corner = 0; corner < 4; corner++) {
			const int x = corner % 2 ? rows[i].width - 3 : 2;
			const int y = corner / 2 ? rows[i].height - 3 : 2;
			const bool white = corner % 2 == rows[i].white_x &&
					   corner / 2 == rows[i].white_y;

			assert_int_equal(rgb[3 * (y * rows[i].width + x)] > 200, white);
		}
		(void)media_convert_destroy(convert);
		(void)media_source_close(source);
	}
}

static void wide_pixels_are_counted(void **state)
{
	const struct media_source_wish wish = { .path = media_scratch_path("wide.mkv"),
						.threads = 1 };
	struct media_picture picture;
	struct media_source *source;

	(void)state;
	clip_make(&(struct clip_wish){ .path = wish.path,
				       .codec = "mpeg4",
				       .width = 48,
				       .height = 48,
				       .frames = 2,
				       .aspect_num = 4,
				       .aspect_den = 3 });
	source = source_open(&wish);
	assert_int_equal(media_source_info(source)->width, 64);
	assert_int_equal(media_source_read(source, &picture, NULL), 1);
	assert_int_equal(picture.aspect_num * 3, picture.aspect_den * 4);
	(void)media_source_close(source);
}

/* ------------------------------------------------------------------------------------ names */

static void the_final_name_appears_at_the_end(void **state)
{
	struct media_sink_wish wish = sink_wish(media_scratch_path("name.mp4"));
	const char *partial = media_scratch_path("name.partial.mp4");
	struct sana_error error = { 0 };
	struct media_sink *sink;

	(void)state;
	sink = sink_open(&wish);
	assert_string_equal(media_sink_info(sink)->partial_path, partial);
	sink_put(sink, 50, 0, 0);
	assert_true(exists(partial) && !exists(wish.path));
	(void)media_sink_close(sink); /* given up */
	assert_true(!exists(partial) && !exists(wish.path));

	sink = sink_open(&wish);
	sink_put(sink, 50, 0, 0);
	sink_end(sink, MEDIA_FINISH_PARTIAL);
	assert_true(exists(partial) && !exists(wish.path));
	assert_int_equal(clip_see(partial).frames, 1);

	clip_write(&wish, 2); /* an old partial file is in nobody's way */
	assert_true(!exists(partial) && exists(wish.path));
	assert_int_equal(media_sink_open(&wish, &sink, &error), -EEXIST);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "sink.exists");
	wish.overwrite = true;
	clip_write(&wish, 3);
	assert_int_equal(clip_see(wish.path).frames, 3);
	assert_null(media_sink_close(NULL));
}

/* A file that appears meanwhile is not replaced. */
static void a_name_taken_meanwhile_is_left_alone(void **state)
{
	struct media_sink_wish wish = sink_wish(media_scratch_path("late.mp4"));
	struct media_sink *sink = sink_open(&wish);
	struct sana_error error = { 0 };

	(void)state;
	sink_put(sink, 50, 0, 0);
	scratch_write_text(&media_scratch, "late.mp4", "mine");
	assert_int_equal(media_sink_finish(sink, MEDIA_FINISH_COMPLETE, &error), -EEXIST);
	assert_string_equal(error.name, "sink.exists");
	print_message("%s\n", error.text);
	(void)media_sink_close(sink);
	assert_int_equal(clip_see(media_scratch_path("late.partial.mp4")).frames,
			 1); /* the work is not lost */
}

static void targets_are_refused_in_one_sentence(void **state)
{
	static const struct {
		const char *name, *codec;
		int width, code;
		const char *error, *says;
	} rows[] = {
		{ "a.avi", NULL, 64, -EINVAL, "sink.format", "extension" },
		{ "noextension", NULL, 64, -EINVAL, "sink.format", "extension" },
		{ "a.webm", "h264", 64, -EINVAL, "sink.format", "h264" },
		{ "a.mp4", "ffv1", 64, -EINVAL, "sink.format", "ffv1" },
		{ "a.mp4", NULL, 63, -EINVAL, "sink.size", "even" },
		{ "a.mp4", NULL, 0, -EINVAL, "sink.size", "cannot" },
		{ "gone/a.mp4", NULL, 64, -ENOENT, "sink.open", "No such file" },
		{ "gone/%d.png", NULL, 64, -ENOENT, "sink.write", "No such file" },
		{ "one.png", NULL, 64, -EINVAL, "sink.format", "pattern" },
		{ "dir.mp4", NULL, 64, -EISDIR, "sink.open", "directory" },
	};

	(void)state;
	assert_int_equal(mkdir(media_scratch_path("dir.mp4"), 0755), 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(rows[i].name));
		struct sana_error error = { 0 };
		struct media_sink *sink = NULL;
		uint8_t rgb[BYTES] = { 0 };
		int r;

		wish.codec = rows[i].codec;
		wish.width = rows[i].width;
		r = media_sink_open(&wish, &sink, &error);
		if (r == 0)
			r = media_sink_write(sink, rgb, 3 * WIDTH, 0, 0, &error);
		print_message("%s\n", error.text);
		assert_int_equal(r, rows[i].code);
		assert_string_equal(error.name, rows[i].error);
		assert_non_null(strstr(error.text, rows[i].says));
		(void)media_sink_close(sink);
	}
	assert_false(exists(media_scratch_path("a.partial.mp4")));
}

/* A file that may not grow stands for a full disk. */
static void a_full_disk_is_said_and_leaves_nothing(void **state)
{
	static const char *const names[] = { "full.mp4", "full.mkv", "full.y4m", "full%d.png" };
	struct rlimit old, small;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ 3000, old.rlim_max };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct media_sink_wish wish = sink_wish(media_scratch_path(names[i]));
		struct sana_error error = { 0 };
		struct media_sink *sink;
		uint8_t rgb[BYTES];
		uint32_t x = 1;
		int r = 0;

		sink = sink_open(&wish);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		for (int f = 0; f < 20 && r == 0; f++) {
			for (int k = 0; k < BYTES; k++)
				rgb[k] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
			r = media_sink_write(sink, rgb, 3 * WIDTH, f * SECOND / 24, 0, &error);
		}
		if (r == 0)
			r = media_sink_finish(sink, MEDIA_FINISH_COMPLETE, &error);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		print_message("%s\n", error.text);
		assert_int_equal(r, -EFBIG);
		assert_string_equal(error.name, "sink.write");
		assert_int_not_equal(media_sink_finish(sink, MEDIA_FINISH_COMPLETE, NULL), 0);
		(void)media_sink_close(sink);
	}
	assert_false(exists(media_scratch_path("full.partial.mp4")) ||
		     exists(media_scratch_path("full.mp4")));
	assert_false(exists(media_scratch_path("full.partial.mkv")) ||
		     exists(media_scratch_path("full1.png")));
	assert_false(exists(media_scratch_path("full1.png.partial")));
}

/* -------------------------------------------------------------------------------- bad sources */

static void source_refuse(const char *path, const char *name, const char *says)
{
	const struct media_source_wish wish = { .path = path, .threads = 1 };
	struct media_source *source = NULL;
	struct sana_error error = { 0 };
	struct media_picture picture;
	int r;

	r = media_source_open(&wish, &source, &error);
	if (r == 0)
		r = media_source_read(source, &picture, &error);
	print_message("%s: %s\n", error.name, error.text);
	assert_true(r < 0);
	assert_string_equal(error.name, name);
	assert_non_null(strstr(error.text, says));
	assert_non_null(strrchr(error.text, '.'));
	(void)media_source_close(source);
}

/* Copies the first percents of a file. */
static void file_cut(const char *from, const char *to, size_t percent)
{
	struct file_map map = { 0 };

	assert_int_equal(file_map(from, "x", &map, NULL), 0);
	scratch_write(&media_scratch, to, map.data, map.size * percent / 100);
	file_unmap(&map);
}

static void sources_are_refused_in_one_sentence(void **state)
{
	(void)state;
	scratch_write_text(&media_scratch, "empty.mp4", "");
	scratch_write_text(&media_scratch, "text.mp4", "This is a letter and not a video.\n");
	scratch_write_text(&media_scratch, "art.txt", "\033[31mThis would be a text screen.\n");
	scratch_write_text(&media_scratch, "list.m3u8",
			   "#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n");
	scratch_write_text(&media_scratch, "list.ffconcat", "ffconcat version 1.0\nfile a.mkv\n");
	scratch_write_text(&media_scratch, "huge.y4m",
			   "YUV4MPEG2 W60000 H60000 F24:1 C420jpeg\nFRAME\n");
	scratch_write_text(&media_scratch, "wide.y4m",
			   "YUV4MPEG2 W20000 H16 F24:1 C420jpeg\nFRAME\n");
	scratch_write_text(&media_scratch, "none.y4m", "YUV4MPEG2 W64 H48 F24:1 C420jpeg\n");
	clip_make(&(struct clip_wish){
		.path = media_scratch_path("sound.wav"), .audio = "pcm_s16le", .audio_ms = 200 });
	clip_make(&(struct clip_wish){
		.path = media_scratch_path("sound.mp4"), .audio = "aac", .audio_ms = 200 });
	clip_make(&(struct clip_wish){ .path = media_scratch_path("whole.mp4"),
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 20 });
	file_cut(media_scratch_path("whole.mp4"), "headless.mp4", 60); /* its index is at the end */

	source_refuse(media_scratch_path("missing.mp4"), "source.open", "No such file");
	source_refuse(media_scratch.path, "source.open", "directory");
	source_refuse(media_scratch_path("empty.mp4"), "source.format", "empty");
	source_refuse(media_scratch_path("text.mp4"), "source.format", "no video file");
	source_refuse(media_scratch_path("art.txt"), "source.format", "no video file");
	source_refuse(media_scratch_path("list.m3u8"), "source.format", "no video file");
	source_refuse(media_scratch_path("list.ffconcat"), "source.format", "no video file");
	source_refuse(media_scratch_path("huge.y4m"), "source.format", "no video file");
	source_refuse(media_scratch_path("wide.y4m"), "source.size", "20000x16");
	source_refuse(media_scratch_path("none.y4m"), "source.empty", "no picture");
	source_refuse(media_scratch_path("sound.wav"), "source.format", "sound");
	source_refuse(media_scratch_path("sound.mp4"), "source.format", "sound");
	source_refuse(media_scratch_path("headless.mp4"), "source.format", "cut off");
	source_refuse(media_scratch_path("none%d.png"), "source.format", "none%d.png");
	source_refuse("http://localhost/a.mp4", "source.open", "No such file");
	source_refuse("pattern:plasma", "source.open", "pattern:");
}

/* What open(2) may wait for is not opened: the answer comes at once. */
static void nothing_that_waits_is_opened(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	(void)alarm(ALARM_S);
	assert_int_equal(mkfifo(media_scratch_path("pipe.mp4"), 0600), 0);
	assert_int_equal(mkfifo(media_scratch_path("n1.png"), 0600), 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.90s",
		       media_scratch_path("socket"));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(symlink("pipe.mp4", media_scratch_path("link.mp4")), 0);
	source_refuse(media_scratch_path("pipe.mp4"), "source.open", "this is a pipe");
	source_refuse(media_scratch_path("link.mp4"), "source.open", "this is a pipe");
	source_refuse("/dev/ptmx", "source.open", "no camera");
	source_refuse("/dev/zero", "source.open", "no camera");
	source_refuse(media_scratch_path("socket"), "source.open", "this is a socket");
	source_refuse(media_scratch_path("n%d.png"), "source.format", "n%d.png");
	(void)alarm(0);
	(void)close(fd);
}

/* Where the caller waits for whoever writes: its pictures; the sound would be a second reader's. */
static void a_pipe_is_read_where_it_is_meant(void **state)
{
	struct media_source_wish wish = { .path = media_scratch_path("pipe.mkv"),
					  .threads = 1,
					  .pipes = true };
	struct media_sink_wish to = sink_wish(media_scratch_path("of-pipe.mkv"));
	struct media_source *source;
	struct media_picture picture;
	struct media_sink *sink;
	char command[600];
	int frames = 0;

	(void)state;
	(void)alarm(ALARM_S);
	clip_make(&(struct clip_wish){ .path = media_scratch_path("whole.mkv"),
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 20 });
	assert_int_equal(mkfifo(wish.path, 0600), 0);
	(void)snprintf(command, sizeof(command), "cat %s >%s &", media_scratch_path("whole.mkv"),
		       wish.path);
	assert_int_equal(system(command), 0);
	source = source_open(&wish);
	while (media_source_read(source, &picture, NULL) > 0)
		frames++;
	(void)media_source_close(source);
	to.audio_path = wish.path;
	sink = sink_open(&to);
	print_message("%d frames. %s\n", frames, media_sink_info(sink)->note);
	assert_int_equal(frames, 20);
	assert_false(media_sink_info(sink)->audio);
	assert_non_null(strstr(media_sink_info(sink)->note, "pipe"));
	(void)media_sink_close(sink);
	(void)alarm(0);
}

/* A clip that was cut off gives what it holds, and then says so. */
static void clips_that_end_early_say_so(void **state)
{
	static const char *const names[] = { "cut.mkv", "cut.y4m", "cut.mp4" };
	struct clip_seen seen;

	(void)state;
	clip_make(&(struct clip_wish){ .path = media_scratch_path("whole.mkv"),
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 50 });
	clip_make(&(struct clip_wish){ .path = media_scratch_path("whole.y4m"),
				       .codec = "wrapped_avframe",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 50 });
	assert_int_equal(clip_see(media_scratch_path("whole.mkv")).end, 0);
	assert_int_equal(clip_see(media_scratch_path("whole.mkv")).frames, 50);
	assert_int_equal(clip_see(media_scratch_path("whole.y4m")).end, 0);
	file_cut(media_scratch_path("whole.mkv"), "cut.mkv", 60);
	file_cut(media_scratch_path("whole.y4m"), "cut.y4m", 97);
	clip_make(&(struct clip_wish){ .path = media_scratch_path("whole.mp4"),
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 50,
				       .options = "movflags=faststart" });
	assert_int_equal(clip_see(media_scratch_path("whole.mp4")).end, 0);
	file_cut(media_scratch_path("whole.mp4"), "cut.mp4", 60);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		seen = clip_see(media_scratch_path(names[i]));
		print_message("%d frames; %s\n", seen.frames, seen.error.text);
		assert_in_range(seen.frames, 10, 49);
		assert_int_equal(seen.end, -ENODATA);
		assert_string_equal(seen.error.name, "source.truncated");
	}
}

/* Bytes turned over in the middle: pictures are lost, the clip goes on. */
static void damage_is_passed_over(void **state)
{
	struct file_map map = { 0 };
	struct clip_seen seen;
	uint8_t *bytes;

	(void)state;
	clip_make(&(struct clip_wish){ .path = media_scratch_path("sound.mkv"),
				       .codec = "ffv1",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 30 });
	assert_int_equal(file_map(media_scratch_path("sound.mkv"), "x", &map, NULL), 0);
	bytes = malloc(map.size);
	assert_non_null(bytes);
	memcpy(bytes, map.data, map.size);
	for (size_t i = map.size / 2; i < map.size / 2 + 40; i++)
		bytes[i] ^= 0xff;
	scratch_write(&media_scratch, "damaged.mkv", bytes, map.size);
	free(bytes);
	file_unmap(&map);
	seen = clip_see(media_scratch_path("damaged.mkv"));
	print_message("%d of 30 frames\n", seen.frames);
	assert_in_range(seen.frames, 20, 30);
}

static bool always(void *context)
{
	(void)context;
	return true;
}

static void reading_can_be_interrupted(void **state)
{
	struct media_source_wish wish = { .path = media_scratch_path("i.mkv"),
					  .threads = 1,
					  .stopped = always };
	struct media_source *source = NULL;
	struct sana_error error = { 0 };

	(void)state;
	clip_make(&(struct clip_wish){ .path = wish.path,
				       .codec = "mpeg4",
				       .width = WIDTH,
				       .height = HEIGHT,
				       .frames = 3 });
	assert_int_equal(media_source_open(&wish, &source, &error), -EINTR);
	assert_string_equal(error.name, "source.interrupted");
	assert_null(source);
}

static void the_pattern_is_always_the_same(void **state)
{
	const struct media_source_wish wish = {
		.path = "pattern:bars",
		.width = 50,
		.height = 30,
		.fps_num = 30000,
		.fps_den = 1001,
		.duration_ns = SECOND,
	};
	struct media_source *a = source_open(&wish), *b = source_open(&wish);
	struct media_picture one, two;
	uint8_t first[3 * 50 * 30];
	int frames = 0;

	(void)state;
	while (media_source_read(a, &one, NULL) > 0) {
		assert_int_equal(media_source_read(b, &two, NULL), 1);
		assert_memory_equal(one.plane[0], two.plane[0], sizeof(first));
		assert_int_equal(one.timestamp_ns, frames * INT64_C(1001000000) / 30);
		if (frames == 0)
			memcpy(first, one.plane[0], sizeof(first));
		else if (frames > 8) /* a bar has moved by a pixel */
			assert_memory_not_equal(first, one.plane[0], sizeof(first));
		frames++;
	}
	assert_int_equal(frames, 30);
	assert_int_equal(media_source_info(a)->frames, 30);
	(void)media_source_close(a);
	(void)media_source_close(b);
	assert_null(media_source_close(NULL));
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, media_scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(lossless_is_lossless),
		CASE(every_container_can_be_read_back),
		CASE(uneven_times_are_kept),
		CASE(the_same_input_gives_the_same_bytes),
		CASE(pictures_come_and_go_by_number),
		CASE(sound_is_copied),
		CASE(sound_ends_with_the_picture_when_cut),
		CASE(sound_without_a_place_is_said),
		CASE(phones_are_turned_upright),
		CASE(wide_pixels_are_counted),
		CASE(the_final_name_appears_at_the_end),
		CASE(a_name_taken_meanwhile_is_left_alone),
		CASE(targets_are_refused_in_one_sentence),
		CASE(a_full_disk_is_said_and_leaves_nothing),
		CASE(sources_are_refused_in_one_sentence),
		CASE(nothing_that_waits_is_opened),
		CASE(a_pipe_is_read_where_it_is_meant),
		CASE(clips_that_end_early_say_so),
		CASE(damage_is_passed_over),
		CASE(reading_can_be_interrupted),
		CASE(the_pattern_is_always_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
