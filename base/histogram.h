/*
 * Durations counted in fixed memory: quantiles within 1.6 %, of the newest one to two periods, so that
 * a figure follows what happens now.
 */
#pragma once

#include <stdint.h>

enum {
	HISTOGRAM_STEPS = 64,	/* per octave: neighbours differ by 1/64 */
	HISTOGRAM_OCTAVES = 40, /* 1 µs … 12 days */
	HISTOGRAM_BUCKETS = HISTOGRAM_STEPS * HISTOGRAM_OCTAVES,
};

struct histogram {
	int64_t period_ns, period_end_ns;
	int64_t most_ns[2]; /* this period's and the last one's */
	uint64_t total[2];
	uint32_t count[2][HISTOGRAM_BUCKETS];
};

/* period_ns 0: everything since the start. */
void histogram_init(struct histogram *histogram, int64_t period_ns);

/* Negative durations count as 0. `now_ns` turns the periods over. */
void histogram_add(struct histogram *histogram, int64_t now_ns, int64_t duration_ns);

/* share 0.5: the median. 0 while there is nothing. */
int64_t histogram_quantile(const struct histogram *histogram, double share);
int64_t histogram_most(const struct histogram *histogram);
uint64_t histogram_total(const struct histogram *histogram);
