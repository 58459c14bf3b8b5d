/* Durations counted in fixed memory. */
#include "base/histogram.h"

#include "base/util.h"

enum { UNIT_NS = 1024 };

void histogram_init(struct histogram *h, int64_t period_ns)
{
	*h = (struct histogram){ .period_ns = period_ns };
}

/* Below HISTOGRAM_STEPS units one bucket per unit, then HISTOGRAM_STEPS buckets per octave. */
static int bucket_of(int64_t duration_ns)
{
	const uint64_t units = duration_ns > 0 ? (uint64_t)duration_ns / UNIT_NS : 0;
	int octave;

	if (units < HISTOGRAM_STEPS)
		return (int)units;
	octave = 63 - __builtin_clzll(units) - 6; /* units >> octave is in [64, 128) */
	return MIN_OF((octave + 1) * HISTOGRAM_STEPS + (int)(units >> octave) - HISTOGRAM_STEPS,
		      HISTOGRAM_BUCKETS - 1);
}

/* The middle of a bucket. */
static int64_t bucket_ns(int bucket)
{
	const int octave = bucket / HISTOGRAM_STEPS - 1;
	const int64_t step = bucket % HISTOGRAM_STEPS;

	if (octave < 0)
		return step * UNIT_NS + UNIT_NS / 2;
	return ((step + HISTOGRAM_STEPS) * UNIT_NS + UNIT_NS / 2) << octave;
}

static void turn_over(struct histogram *h, int64_t now_ns)
{
	const bool one_missed = now_ns >= h->period_end_ns + h->period_ns;

	if (one_missed) {
		memset(h->count[1], 0, sizeof(h->count[1]));
		h->total[1] = 0;
		h->most_ns[1] = 0;
	} else {
		memcpy(h->count[1], h->count[0], sizeof(h->count[1]));
		h->total[1] = h->total[0];
		h->most_ns[1] = h->most_ns[0];
	}
	memset(h->count[0], 0, sizeof(h->count[0]));
	h->total[0] = 0;
	h->most_ns[0] = 0;
	h->period_end_ns = one_missed ? now_ns + h->period_ns : h->period_end_ns + h->period_ns;
}

void histogram_add(struct histogram *h, int64_t now_ns, int64_t duration_ns)
{
	if (h->period_ns > 0 && h->period_end_ns == 0)
		h->period_end_ns = now_ns + h->period_ns;
	else if (h->period_ns > 0 && now_ns >= h->period_end_ns)
		turn_over(h, now_ns);
	h->count[0][bucket_of(duration_ns)]++;
	h->total[0]++;
	h->most_ns[0] = MAX_OF(h->most_ns[0], duration_ns);
}

uint64_t histogram_total(const struct histogram *h)
{
	return h->total[0] + h->total[1];
}

int64_t histogram_most(const struct histogram *h)
{
	return MAX_OF(h->most_ns[0], h->most_ns[1]);
}

int64_t histogram_quantile(const struct histogram *h, double share)
{
	const uint64_t total = histogram_total(h);
	const uint64_t rank = (uint64_t)(share * (double)total);
	uint64_t seen = 0;

	if (total == 0)
		return 0;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += (uint64_t)h->count[0][i] + h->count[1][i];
		if (seen > rank || seen == total)
			return MIN_OF(bucket_ns(i), histogram_most(h));
	}
	return histogram_most(h);
}
