/* Recordings of live video: whole, and without memory for what is written already. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libavformat/avformat.h>
#include <malloc.h>
#include <string.h>

#include "base/util.h"
#include "media/av.h"
#include "media/sink.h"
#include "media/source.h"
#include "tests/common/media_scratch.h"

/* Before 2.33 glibc counted in int; the sanitizers have a heap of their own. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define HEAP_COUNTED __GLIBC_PREREQ(2, 33)
#else
#define HEAP_COUNTED 0
#endif

enum { WIDTH = 64, HEIGHT = 48 };

static const int64_t SECOND = 1000000000;

static struct media_sink *recording_open(const char *name)
{
	const struct media_sink_wish wish = { .path = media_scratch_path(name),
					      .width = WIDTH,
					      .height = HEIGHT,
					      .fps_num = 24,
					      .fps_den = 1,
					      .threads = 1,
					      .durable = true };
	struct media_sink *sink = NULL;
	struct sana_error error = { 0 };

	if (media_sink_open(&wish, &sink, &error) < 0)
		fail_msg("%s: %s", name, error.text);
	return sink;
}

/* Pictures number `from` to below `to`, so far apart. */
static void recording_put(struct media_sink *sink, int from, int to, int64_t apart_ns)
{
	struct sana_error error = { 0 };
	uint8_t rgb[3 * WIDTH * HEIGHT];

	for (int i = from; i < to; i++) {
		memset(rgb, i % 200, sizeof(rgb));
		if (media_sink_write(sink, rgb, 3 * WIDTH, i * apart_ns, 0, &error) < 0)
			fail_msg("%s", error.text);
	}
}

static void recording_end(struct media_sink *sink)
{
	struct sana_error error = { 0 };

	if (media_sink_finish(sink, MEDIA_FINISH_COMPLETE, &error) < 0)
		fail_msg("%s", error.text);
	(void)media_sink_close(sink);
}

/* Where a player lands that jumps to `second`, in seconds. */
static double jump(const char *path, int second)
{
	AVFormatContext *format = NULL;
	AVPacket *packet = av_packet_alloc();
	double at;

	assert_non_null(packet);
	assert_int_equal(avformat_open_input(&format, path, NULL, NULL), 0);
	assert_true(avformat_find_stream_info(format, NULL) >= 0);
	assert_true(av_seek_frame(format, -1, second * INT64_C(1000000), AVSEEK_FLAG_BACKWARD) >=
		    0);
	assert_int_equal(av_read_frame(format, packet), 0);
	at = (double)packet->pts * av_q2d(format->streams[0]->time_base);
	av_packet_free(&packet);
	avformat_close_input(&format);
	return at;
}

/* All pictures at their times, the length is known before, and a player may jump. */
static void a_recording_is_whole(void **state)
{
	enum { FRAMES = 600, LATE = 20 };
	static const char *const names[] = { "a.mp4", "b.m4v", "c.mov", "d.mkv", "e.webm" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct media_sink *sink = recording_open(names[i]);
		struct media_source_wish wish = { .threads = 1 };
		struct media_source *source;
		struct media_picture picture;
		struct sana_error error = { 0 };
		int frames = 0, r;
		double length, at;

		recording_put(sink, 0, FRAMES, SECOND / 24);
		recording_end(sink);
		wish.path = media_scratch_path(names[i]);
		at = jump(wish.path, LATE);
		if (media_source_open(&wish, &source, &error) < 0)
			fail_msg("%s: %s", names[i], error.text);
		length = (double)media_source_info(source)->duration_ns / 1e9;
		for (; (r = media_source_read(source, &picture, &error)) > 0; frames++)
			assert_in_range(picture.timestamp_ns - frames * (SECOND / 24) +
						SECOND / 500,
					0, SECOND / 250);
		(void)media_source_close(source);
		print_message("%s: %d frames, %.2f s, a jump to %d s ends at %.2f s\n", names[i],
			      frames, length, LATE, at);
		assert_int_equal(r, 0);
		assert_int_equal(frames, FRAMES);
		assert_true(length > FRAMES / 24.0 - 0.1 && length < FRAMES / 24.0 + 0.1);
		/* To the key frame before: there is one every 250 frames at least. */
		assert_true(at > LATE - 11 && at <= LATE);
	}
}

#if HEAP_COUNTED
static size_t heap_bytes(void)
{
	const struct mallinfo2 heap = mallinfo2();

	return heap.uordblks + heap.hblkhd;
}

/* A fragment a second, for as many seconds: none is remembered. */
static void memory_does_not_grow(void **state)
{
	enum { WARM = 500, FRAGMENTS = 2500, SLACK_BYTES = 4096 };
	static const char *const names[] = { "a.mp4", "b.m4v", "c.mov" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct media_sink *sink = recording_open(names[i]);
		size_t before, after;

		recording_put(sink, 0, WARM, SECOND);
		before = heap_bytes();
		recording_put(sink, WARM, FRAGMENTS, SECOND);
		after = heap_bytes();
		print_message("%s: %zu bytes after %d fragments, %zu after %d\n", names[i], before,
			      WARM, after, FRAGMENTS);
		recording_end(sink);
		/* Less than two bytes a fragment. */
		assert_true(after <= before + SLACK_BYTES);
	}
}
#else
static void memory_does_not_grow(void **state)
{
	(void)state;
	print_message("the heap cannot be asked here\n");
	skip();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_recording_is_whole, media_scratch_setup,
						media_scratch_teardown),
		cmocka_unit_test_setup_teardown(memory_does_not_grow, media_scratch_setup,
						media_scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
