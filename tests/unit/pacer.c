/*
 * The pacer under a simulated clock: frames of a model of source and engine go in, ticks of the output
 * clock come out. Whoever ticks is late by up to SCHEDULING_NS, as a thread is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/util.h"
#include "daemon/pacer.h"
#include "daemon/pipeline_admit.h"

#define SCHEDULING_NS (2 * CLOCK_MS_NS)
#define CAP_NS (5 * CLOCK_SECOND_NS)
/* The bound on the output's evenness: within 10 % of nominal at p99. */
#define UNEVEN 0.10

struct world {
	int source_fps_num, source_fps_den, output_fps;
	int burst;	   /* frames the engine gives out at once; 1: one by one */
	int64_t engine_ns; /* per frame of a burst */
	int64_t jitter_ns; /* of capture times */
	int64_t cap_ns;
	double seconds, settle_seconds;
};

struct result {
	struct pacer pacer;
	struct histogram interval; /* between two outputs */
	struct histogram fresh;	   /* between two newly shown frames */
	int64_t oldest_ns;	   /* age of a newly shown frame, after settling */
	uint64_t repeated, skipped, shown, released, arrived, admitted;
	int64_t last_error_ns; /* of the last tick against start + n / fps */
	uint64_t random;
	struct admit admit;
	int64_t engine_free_ns;
};

static uint64_t random_next(struct result *r)
{
	/* Knuth's 64-bit linear congruential generator. */
	r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
	return r->random >> 33;
}

static int64_t random_below(struct result *r, int64_t limit)
{
	return limit > 0 ? (int64_t)(random_next(r) % (uint64_t)limit) : 0;
}

static void count_release(void *context, void *frame)
{
	(void)frame;
	((struct result *)context)->released++;
}

/* The frame itself is its capture time. */
static void *as_frame(int64_t capture_ns)
{
	return (void *)(intptr_t)capture_ns;
}

static void tick_once(const struct world *w, struct result *r, int64_t settle_ns, int64_t *last_out,
		      int64_t *last_fresh)
{
	const int64_t due_ns = pacer_next_ns(&r->pacer);
	const int64_t now_ns = due_ns + random_below(r, SCHEDULING_NS);
	const bool settled = due_ns > settle_ns;
	uint64_t tick;
	const int64_t capture_ns = (int64_t)(intptr_t)pacer_tick(&r->pacer, now_ns, &tick);

	r->last_error_ns = pacer_tick_ns(&r->pacer, tick) - CLOCK_SECOND_NS -
			   (int64_t)((__int128)tick * CLOCK_SECOND_NS / w->output_fps);
	if (settled && *last_out)
		histogram_add(&r->interval, now_ns, now_ns - *last_out);
	*last_out = now_ns;
	if (!capture_ns)
		return;
	if (settled && *last_fresh)
		histogram_add(&r->fresh, now_ns, now_ns - *last_fresh);
	*last_fresh = now_ns;
	if (settled)
		r->oldest_ns = MAX_OF(r->oldest_ns, now_ns - capture_ns);
}

/* Runs ticks up to an instant. */
static void ticks_until(const struct world *w, struct result *r, int64_t until_ns,
			int64_t settle_ns, int64_t *last_out, int64_t *last_fresh)
{
	while (pacer_next_ns(&r->pacer) <= until_ns)
		tick_once(w, r, settle_ns, last_out, last_fresh);
}

/*
 * Source frames in order; bursts are collected, worked on for engine_ns a frame, then all there at once.
 */
static void simulate(const struct world *w, struct result *r)
{
	const struct pacer_wish wish = { .fps_num = w->output_fps,
					 .fps_den = 1,
					 .cap_ns = w->cap_ns,
					 .release = count_release,
					 .context = r };
	const int64_t start_ns = CLOCK_SECOND_NS;
	const int64_t end_ns = start_ns + (int64_t)(w->seconds * 1e9);
	const int64_t settle_ns = start_ns + (int64_t)(w->settle_seconds * 1e9);
	int64_t batch[PACER_CAPACITY], last_out = 0, last_fresh = 0;
	int batched = 0;

	*r = (struct result){ .random = 1 };
	histogram_init(&r->interval, 0);
	histogram_init(&r->fresh, 0);
	pacer_init(&r->pacer, &wish, start_ns);
	for (int64_t n = 0;; n++) {
		const int64_t even_ns = start_ns + (int64_t)((__int128)n * CLOCK_SECOND_NS *
							     w->source_fps_den / w->source_fps_num);
		const int64_t capture_ns = even_ns + random_below(r, w->jitter_ns);
		int64_t ready_ns;

		if (even_ns > end_ns)
			break;
		if (!admit_offer(&r->admit, capture_ns))
			continue;
		r->admitted++;
		batch[batched++] = capture_ns;
		if (batched < w->burst)
			continue;
		ready_ns = MAX_OF(capture_ns, r->engine_free_ns) + w->engine_ns * w->burst;
		r->engine_free_ns = ready_ns;
		admit_measure(&r->admit, w->burst, w->engine_ns * w->burst);
		ticks_until(w, r, ready_ns, settle_ns, &last_out, &last_fresh);
		for (int i = 0; i < batched; i++)
			pacer_arrive(&r->pacer, ready_ns, batch[i], as_frame(batch[i]));
		batched = 0;
		if (ready_ns <= settle_ns) {
			r->repeated = r->pacer.repeated;
			r->skipped = r->pacer.skipped;
			r->shown = r->pacer.shown;
		}
	}
	r->repeated = r->pacer.repeated - r->repeated;
	r->skipped = r->pacer.skipped - r->skipped;
	r->shown = r->pacer.shown - r->shown;
}

static void report(const char *name, const struct world *w, const struct result *r)
{
	print_message("%s: output interval p50 %.2f p99 %.2f ms (nominal %.2f), fresh p50 %.2f p99 "
		      "%.2f ms, shown %llu repeated %llu skipped %llu late %llu, delay %.0f ms, "
		      "oldest %.0f ms\n",
		      name, (double)histogram_quantile(&r->interval, 0.5) / 1e6,
		      (double)histogram_quantile(&r->interval, 0.99) / 1e6, 1e3 / w->output_fps,
		      (double)histogram_quantile(&r->fresh, 0.5) / 1e6,
		      (double)histogram_quantile(&r->fresh, 0.99) / 1e6,
		      (unsigned long long)r->shown, (unsigned long long)r->repeated,
		      (unsigned long long)r->skipped, (unsigned long long)r->pacer.late,
		      (double)r->pacer.delay_ns / 1e6, (double)r->oldest_ns / 1e6);
}

static void assert_even(const struct histogram *h, double nominal_ns)
{
	assert_true(histogram_total(h) > 0);
	assert_true((double)histogram_quantile(h, 0.99) <= (1.0 + UNEVEN) * nominal_ns);
	assert_true((double)histogram_quantile(h, 0.01) >= (1.0 - UNEVEN) * nominal_ns);
}

/* Nothing is lost: what came was shown, released, or waits. */
static void assert_accounted(const struct result *r)
{
	assert_int_equal(r->pacer.arrived, r->pacer.shown + r->released + (uint64_t)r->pacer.count);
}

static void test_24_to_24(void **state)
{
	const struct world w = { 24, 1, 24, 1, 5 * CLOCK_MS_NS, 0, CAP_NS, 60, 2 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("24 to 24", &w, &r);
	assert_even(&r.interval, 1e9 / 24);
	assert_even(&r.fresh, 1e9 / 24);
	assert_int_equal(r.repeated, 0);
	assert_int_equal(r.skipped, 0);
	assert_accounted(&r);
}

static void test_30_to_24(void **state)
{
	const struct world w = { 30, 1, 24, 1, 5 * CLOCK_MS_NS, 0, CAP_NS, 60, 2 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("30 to 24", &w, &r);
	assert_even(&r.interval, 1e9 / 24);
	assert_even(&r.fresh, 1e9 / 24);
	assert_int_equal(r.repeated, 0);
	/* Six a second of 58 seconds; one more or less where the count begins. */
	assert_in_range(r.skipped, 6 * 58 - 2, 6 * 58 + 2);
	assert_accounted(&r);
}

static void test_25_to_24_in_bursts(void **state)
{
	const struct world w = { 25, 1, 24, 24, 20 * CLOCK_MS_NS, 0, CAP_NS, 120, 5 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("25 to 24 in bursts of 24", &w, &r);
	assert_even(&r.fresh, 1e9 / 24);
	assert_int_equal(r.repeated, 0);
	assert_in_range(r.skipped, 110, 117);
	assert_accounted(&r);
}

/* Jitter of less than half an interval either way changes nothing. */
static void test_jitter(void **state)
{
	const struct world w = { 24, 1, 24, 1, 5 * CLOCK_MS_NS, 18 * CLOCK_MS_NS, CAP_NS, 120, 10 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("24 to 24, 18 ms of jitter", &w, &r);
	assert_even(&r.interval, 1e9 / 24);
	assert_even(&r.fresh, 1e9 / 24);
	assert_true(r.repeated + r.skipped <= 2);
	assert_accounted(&r);
}

static void test_bursts(void **state)
{
	const int bursts[] = { 12, 24 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bursts); i++) {
		const struct world w = {
			24, 1, 24, bursts[i], 35 * CLOCK_MS_NS, 4 * CLOCK_MS_NS, CAP_NS, 120, 5
		};
		struct result r;

		simulate(&w, &r);
		report(bursts[i] == 24 ? "bursts of 24" : "bursts of 12", &w, &r);
		assert_even(&r.interval, 1e9 / 24);
		assert_even(&r.fresh, 1e9 / 24);
		assert_true(r.repeated + r.skipped <= 2);
		/* A burst takes burst/24 s to come and 0.84 of that to be worked on, and 1.5 intervals. */
		assert_true(r.oldest_ns <= bursts[i] * (CLOCK_SECOND_NS / 24 + 35 * CLOCK_MS_NS) +
						   3 * CLOCK_SECOND_NS / 48 + 10 * CLOCK_MS_NS);
		assert_accounted(&r);
	}
}

/* Twelve frames a second are admitted, evenly; each is shown for two ticks. */
static void test_half_speed(void **state)
{
	const struct world w = { 24, 1, 24, 24, CLOCK_SECOND_NS / 12, 0, CAP_NS, 300, 30 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("engine at half speed", &w, &r);
	print_message("admitted %.2f frames a second\n", (double)r.admitted / w.seconds);
	assert_even(&r.interval, 1e9 / 24);
	/* 97 % of twelve a second: one interval in 33 is a tick longer, which p99 sees. */
	assert_in_range(histogram_quantile(&r.fresh, 0.5), 75000000, 92000000);
	assert_in_range(histogram_quantile(&r.fresh, 0.99), 75000000, 140000000);
	assert_true(r.oldest_ns <= CAP_NS);
	assert_int_equal(r.pacer.late, 0);
	assert_accounted(&r);
}

/* A cap below what the engine needs: nothing older is shown, and it is counted. */
static void test_cap(void **state)
{
	const struct world w = {
		24, 1, 24, 24, 35 * CLOCK_MS_NS, 0, 3 * CLOCK_SECOND_NS / 2, 60, 5
	};
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("cap of 1.5 s", &w, &r);
	assert_true(r.pacer.late > 0);
	assert_true(r.shown > 0);
	assert_true(r.oldest_ns <= w.cap_ns + SCHEDULING_NS);
	assert_accounted(&r);
}

/* A camera's clock that is 100 ppm fast, over a day: ticks stay exact, the age stays the same. */
static void test_day(void **state)
{
	const struct world w = { 240024, 10000, 24, 24, 20 * CLOCK_MS_NS, 0, CAP_NS, 86400, 60 };
	struct result r;

	(void)state;
	simulate(&w, &r);
	report("a day, 100 ppm", &w, &r);
	print_message("last tick off by %lld ns\n", (long long)r.last_error_ns);
	assert_int_equal(r.last_error_ns, 0);
	assert_even(&r.interval, 1e9 / 24);
	assert_int_equal(r.repeated, 0);
	/* 24·86400·1e−4 = 207 frames too many. */
	assert_in_range(r.skipped, 200, 215);
	assert_true(r.oldest_ns <= 24 * (CLOCK_SECOND_NS / 24 + 20 * CLOCK_MS_NS) +
					   3 * CLOCK_SECOND_NS / 48 + 10 * CLOCK_MS_NS);
	assert_accounted(&r);
}

/* NTSC rates: the sum of intervals is exact. */
static void test_rational(void **state)
{
	const struct pacer_wish wish = { 30000, 1001, CAP_NS, 0, count_release, NULL };
	struct pacer p;

	(void)state;
	pacer_init(&p, &wish, 5);
	/* 30000·n ticks take 1001·n seconds. */
	assert_int_equal(pacer_tick_ns(&p, 30000), 1001 * CLOCK_SECOND_NS + 5);
	assert_int_equal(pacer_tick_ns(&p, 30000ull * 86400), 1001 * 86400 * CLOCK_SECOND_NS + 5);
	print_message("interval %lld ns\n", (long long)p.interval_ns);
}

/* A thread that was kept away: what it missed is counted, the clock goes on in step. */
static void test_missed(void **state)
{
	const struct pacer_wish wish = { 24, 1, CAP_NS, 0, count_release, NULL };
	struct pacer p;
	uint64_t tick;

	(void)state;
	pacer_init(&p, &wish, 0);
	assert_null(pacer_tick(&p, 0, &tick));
	assert_null(pacer_tick(&p, CLOCK_SECOND_NS, &tick));
	print_message("tick %llu, missed %llu\n", (unsigned long long)tick,
		      (unsigned long long)p.missed);
	assert_int_equal(tick, 24);
	assert_int_equal(p.missed, 23);
	pacer_skip_to(&p, 2 * CLOCK_SECOND_NS);
	assert_true(pacer_next_ns(&p) > 2 * CLOCK_SECOND_NS);
	assert_true(pacer_next_ns(&p) <= 2 * CLOCK_SECOND_NS + p.interval_ns);
	assert_int_equal(p.missed, 23);
}

/* More than there is room for: the oldest goes. Out of order: refused. */
static void test_overrun(void **state)
{
	struct result r = { 0 };
	const struct pacer_wish wish = { 24, 1, CAP_NS, 4, count_release, &r };
	uint64_t tick;

	(void)state;
	pacer_init(&r.pacer, &wish, 0);
	for (int64_t i = 1; i <= 6; i++)
		pacer_arrive(&r.pacer, 100, i, as_frame(i));
	pacer_arrive(&r.pacer, 100, 3, as_frame(3));
	assert_int_equal(r.pacer.overrun, 2);
	assert_int_equal(r.pacer.late, 1);
	assert_int_equal(r.released, 3);
	assert_ptr_equal(pacer_tick(&r.pacer, 0, &tick), as_frame(3));
	pacer_clear(&r.pacer);
	assert_int_equal(r.released, 6);
}

/*
 * An engine that was slow and is quick again: the frames that it left behind its lateness do not fill the
 * queue for the minutes in which the delay falls. One jump, then an even picture.
 */
static void test_recovery(void **state)
{
	enum { BURST = 24, SLOW_BURSTS = 20, BURSTS = 80, CAPACITY = 57 };
	struct result r = { 0 };
	const struct pacer_wish wish = { 24, 1, CAP_NS, CAPACITY, count_release, &r };
	uint64_t tick, repeated = 0, overrun = 0;
	int64_t capture_ns = CLOCK_SECOND_NS;

	(void)state;
	pacer_init(&r.pacer, &wish, CLOCK_SECOND_NS);
	for (int burst = 0; burst < BURSTS; burst++) {
		const int64_t late_ns = (burst < SLOW_BURSTS ? 2500 : 150) * CLOCK_MS_NS;
		const int64_t ready_ns = capture_ns + CLOCK_SECOND_NS + late_ns;

		while (pacer_next_ns(&r.pacer) <= ready_ns)
			(void)pacer_tick(&r.pacer, pacer_next_ns(&r.pacer), &tick);
		for (int i = 0; i < BURST; i++, capture_ns += CLOCK_SECOND_NS / 24)
			pacer_arrive(&r.pacer, ready_ns, capture_ns, as_frame(capture_ns));
		if (burst == SLOW_BURSTS + 3) {
			repeated = r.pacer.repeated;
			overrun = r.pacer.overrun;
		}
	}
	print_message("jump over %llu frames; then %llu overrun, %llu repeated, delay %.2f s\n",
		      (unsigned long long)overrun, (unsigned long long)(r.pacer.overrun - overrun),
		      (unsigned long long)(r.pacer.repeated - repeated),
		      (double)r.pacer.delay_ns / 1e9);
	/* What lay in the queue too much: the lateness that is gone. */
	assert_in_range(overrun, 1, 2 * BURST + BURST);
	assert_int_equal(r.pacer.overrun, overrun);
	assert_true(r.pacer.repeated - repeated <= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_24_to_24),
		cmocka_unit_test(test_30_to_24),
		cmocka_unit_test(test_25_to_24_in_bursts),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_bursts),
		cmocka_unit_test(test_half_speed),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_day),
		cmocka_unit_test(test_rational),
		cmocka_unit_test(test_missed),
		cmocka_unit_test(test_overrun),
		cmocka_unit_test(test_recovery),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
