/*
 * The demo model over 300 chunks of looping video: colours, contrast and closeness to the exact edit at
 * the end are those of the beginning, and memory is flat. SANA_SOAK=1: 3,000 chunks.
 *
 * Twenty chunks are one turn of the moving picture, so that any twenty see the same source frames.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/common/demo_clip.h"
#include "tests/common/edit_look.h"

enum {
	CHUNKS = 300,
	SOAK_CHUNKS = 3000,
	FIRST_FRAMES = 9, /* of the first chunk; later ones have 6 */
	CHUNK_FRAMES = 6,
	WINDOW_CHUNKS = 20,
	WINDOW_FRAMES = WINDOW_CHUNKS * CHUNK_FRAMES,
};

_Static_assert((int)WINDOW_FRAMES == (int)MOVING_PERIOD, "a window is one turn of the picture");

/*
 * How far the last window may be from the first. Over 300 chunks of three edits and pictures the largest
 * were, in this order: 1.3, 0.5, 0.5, 0.2, 0.17 and 0.19. Windows on the way differ from one another by
 * up to 3.1, 0.8, 1.5, 0.1, 0.3 and 0.4, without a direction: the noise of each turn is new. Bounds lie
 * at that wandering or a little over it, half of what the eye takes for another colour (5 grey levels)
 * or misses in sharpness (1 dB).
 */
static const struct {
	double mean, deviation;		      /* of R, G, B and luma, in grey levels */
	double chroma_mean, chroma_deviation; /* of Cb and Cr */
	double psnr, worst_chunk_psnr;	      /* less, in dB */
} bounds = { 3.0, 1.5, 1.5, 0.6, 0.5, 0.6 };

/* A few pages for what the C library does on its own, against 0.8 MB a chunk of pictures. */
static const long memory_bound_kib = 512;

enum { RED, GREEN, BLUE, LUMA, CB, CR, COLOURS };

/* What one turn of the picture came out like. */
struct window {
	double mean[COLOURS], deviation[COLOURS];
	double psnr, worst_chunk_psnr; /* against the exact edit; NaN for the sketch */
};

struct sums {
	double sum[COLOURS], squares[COLOURS], pixels;
	double psnr, worst, chunks;
};

static void colours_of(const uint8_t *p, double to[COLOURS])
{
	const double luma = 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2];

	to[RED] = p[0];
	to[GREEN] = p[1];
	to[BLUE] = p[2];
	to[LUMA] = luma;
	to[CB] = (p[2] - luma) / 1.8556;
	to[CR] = (p[0] - luma) / 1.5748;
}

static void sums_add(struct sums *sums, const uint8_t *frame)
{
	double value[COLOURS];

	for (size_t i = 0; i < MOVING_PIXELS; i++) {
		colours_of(frame + 3 * i, value);
		for (int c = 0; c < COLOURS; c++) {
			sums->sum[c] += value[c];
			sums->squares[c] += value[c] * value[c];
		}
	}
	sums->pixels += MOVING_PIXELS;
}

static struct window sums_window(const struct sums *sums)
{
	struct window window = { .psnr = sums->psnr / sums->chunks,
				 .worst_chunk_psnr = sums->worst };

	for (int c = 0; c < COLOURS; c++) {
		const double mean = sums->sum[c] / sums->pixels;

		window.mean[c] = mean;
		window.deviation[c] = sqrt(fmax(sums->squares[c] / sums->pixels - mean * mean, 0));
	}
	return window;
}

/* Runs one window of chunks and measures it. */
static struct window window_run(struct demo_clip *clip, enum edit_kind kind)
{
	struct sums sums = { .worst = INFINITY };

	for (int chunk = 0; chunk < WINDOW_CHUNKS; chunk++) {
		double error = 0, psnr;

		for (int i = 0; i < CHUNK_FRAMES; i++) {
			const uint64_t frame = clip->pulled;

			demo_clip_run(clip, frame + 1);
			sums_add(&sums, demo_clip_edited(clip, frame));
			psnr = edit_psnr(kind, demo_clip_source(clip, frame),
					 demo_clip_edited(clip, frame), MOVING_PIXELS);
			error += pow(10, -psnr / 10) / CHUNK_FRAMES;
		}
		psnr = -10 * log10(error);
		sums.psnr += psnr;
		sums.worst = fmin(sums.worst, psnr);
		sums.chunks += 1;
	}
	return sums_window(&sums);
}

static long resident_kib(void)
{
	long total, resident;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%ld %ld", &total, &resident), 2);
	(void)fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void window_print(uint64_t chunk, const struct window *w, long kib)
{
	print_message(
		"  to chunk %5llu  mean R %5.1f G %5.1f B %5.1f Y %5.1f Cb %5.1f Cr %5.1f  "
		"deviation %4.1f %4.1f %4.1f %4.1f %4.1f %4.1f  PSNR %5.2f, worst chunk %5.2f dB  "
		"memory %ld KiB\n",
		(unsigned long long)chunk, w->mean[RED], w->mean[GREEN], w->mean[BLUE],
		w->mean[LUMA], w->mean[CB], w->mean[CR], w->deviation[RED], w->deviation[GREEN],
		w->deviation[BLUE], w->deviation[LUMA], w->deviation[CB], w->deviation[CR], w->psnr,
		w->worst_chunk_psnr, kib);
}

static void windows_compare(const struct window *first, const struct window *last)
{
	double worst[4] = { 0 };

	for (int c = 0; c < COLOURS; c++) {
		const int chroma = c >= CB ? 2 : 0;

		worst[chroma] = fmax(worst[chroma], fabs(last->mean[c] - first->mean[c]));
		worst[chroma + 1] =
			fmax(worst[chroma + 1], fabs(last->deviation[c] - first->deviation[c]));
	}
	print_message("  last against first: means by %.2f, deviations by %.2f, of chroma %.2f and "
		      "%.2f; PSNR %.2f dB less, worst chunk %.2f dB less\n",
		      worst[0], worst[1], worst[2], worst[3], first->psnr - last->psnr,
		      first->worst_chunk_psnr - last->worst_chunk_psnr);
	assert_true(worst[0] <= bounds.mean && worst[1] <= bounds.deviation);
	assert_true(worst[2] <= bounds.chroma_mean && worst[3] <= bounds.chroma_deviation);
	/* Written so that a NaN passes: the sketch has no exact edit. */
	assert_false(last->psnr < first->psnr - bounds.psnr);
	assert_false(last->worst_chunk_psnr < first->worst_chunk_psnr - bounds.worst_chunk_psnr);
}

static void demo_runs(const char *edit, int which)
{
	const enum edit_kind kind = edit_from_name(edit);
	const uint64_t chunks = getenv("SANA_SOAK") ? SOAK_CHUNKS : CHUNKS;
	struct sana_model *model = demo_model_open("models/demo");
	const struct stream_config *config = &sana_model_config(model)->stream;
	struct moving_picture picture = moving_picture_open(which);
	struct sana_prompt *prompt = NULL;
	struct sana_statistics statistics;
	struct window first, last;
	struct demo_clip *clip;
	long first_kib, last_kib;

	for (int i = 0; i < config->prompts; i++)
		if (strcmp(config->prompt[i].edit, edit) == 0)
			prompt = demo_prompt_create(model, config->prompt[i].prompt);
	assert_non_null(prompt);
	clip = demo_clip_open(model, prompt, 3, 0, &picture, 0, 2 * CHUNK_FRAMES);
	print_message("%s of %s, %llu chunks\n", edit, picture.name, (unsigned long long)chunks);

	/* From here on six frames are a chunk: the last six of the first one to begin with. */
	demo_clip_run(clip, FIRST_FRAMES - CHUNK_FRAMES);
	first = window_run(clip, kind);
	first_kib = resident_kib();
	window_print(WINDOW_CHUNKS, &first, first_kib);
	do {
		last = window_run(clip, kind);
		last_kib = resident_kib();
		sana_stream_statistics(clip->stream, &statistics);
		if (statistics.chunks < chunks && statistics.chunks % (3 * WINDOW_CHUNKS) < 2)
			window_print(statistics.chunks, &last, last_kib);
	} while (statistics.chunks < chunks);
	window_print(statistics.chunks, &last, last_kib);
	windows_compare(&first, &last);
	assert_true(last_kib - first_kib <= memory_bound_kib);
	assert_int_equal(statistics.chunks_dropped, 0);
	assert_int_equal(statistics.states_discarded, 0);
	assert_int_equal(statistics.resets, 0);

	demo_clip_close(clip);
	(void)sana_prompt_unref(prompt);
	moving_picture_close(&picture);
	(void)sana_model_unref(model);
}

static void keep_stays_itself(void **state)
{
	(void)state;
	demo_runs("keep", 0);
}

static void invert_stays_itself(void **state)
{
	(void)state;
	demo_runs("invert", 1);
}

static void gold_stays_itself(void **state)
{
	(void)state;
	demo_runs("gold", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keep_stays_itself),
		cmocka_unit_test(invert_stays_itself),
		cmocka_unit_test(gold_stays_itself),
	};

	return cmocka_run_group_tests_name("demo_300", tests, NULL, NULL);
}
