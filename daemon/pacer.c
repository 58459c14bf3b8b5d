/* Bursts of frames into an even output clock: daemon/pacer.h says how. */
#include "daemon/pacer.h"

#include "base/clock.h"
#include "base/util.h"

static int64_t ticks_to_ns(const struct pacer *p, uint64_t ticks)
{
	const uint64_t num = (uint64_t)p->wish.fps_num, den = (uint64_t)p->wish.fps_den;

	/* Whole seconds' worth first: num ticks take den seconds. */
	return (int64_t)(ticks / num * den * (uint64_t)CLOCK_SECOND_NS +
			 ticks % num * den * (uint64_t)CLOCK_SECOND_NS / num);
}

int64_t pacer_tick_ns(const struct pacer *p, uint64_t tick)
{
	return p->start_ns + ticks_to_ns(p, tick);
}

int64_t pacer_next_ns(const struct pacer *p)
{
	return pacer_tick_ns(p, p->tick);
}

void pacer_init(struct pacer *p, const struct pacer_wish *wish, int64_t start_ns)
{
	*p = (struct pacer){ .wish = *wish, .start_ns = start_ns };
	if (wish->capacity <= 0 || wish->capacity > PACER_CAPACITY)
		p->wish.capacity = PACER_CAPACITY;
	p->interval_ns = CLOCK_SECOND_NS * wish->fps_den / wish->fps_num;
}

void pacer_set_cap(struct pacer *p, int64_t cap_ns)
{
	p->wish.cap_ns = cap_ns;
}

static void *entry_take(struct pacer *p)
{
	void *frame = p->entry[p->first].frame;

	p->first = (p->first + 1) % PACER_CAPACITY;
	p->count--;
	return frame;
}

static void entry_release(struct pacer *p, uint64_t *counter)
{
	(*counter)++;
	p->wish.release(p->wish.context, entry_take(p));
}

void pacer_clear(struct pacer *p)
{
	while (p->count > 0)
		p->wish.release(p->wish.context, entry_take(p));
	p->delay_ns = 0;
	memset(p->group_most_ns, 0, sizeof(p->group_most_ns));
	p->newest_capture_ns = INT64_MIN;
}

/* ---------------------------------------------------------------------------------- the delay */

static int64_t delay_wanted(const struct pacer *p)
{
	int64_t most = 0;

	for (int i = 0; i < PACER_GROUPS; i++)
		most = MAX_OF(most, p->group_most_ns[i]);
	return most;
}

static void delay_follow(struct pacer *p, int64_t now_ns, int64_t age_ns)
{
	const int64_t limit = MAX_OF(p->wish.cap_ns - 2 * p->interval_ns, 0);
	const int64_t fallen = p->delay_ns - MAX_OF(now_ns - p->delay_at_ns, 0) / PACER_FALL;

	if (p->in_group == PACER_GROUP) {
		p->in_group = 0;
		p->group = (p->group + 1) % PACER_GROUPS;
		p->group_most_ns[p->group] = 0;
	}
	p->in_group++;
	p->group_most_ns[p->group] = MAX_OF(p->group_most_ns[p->group], age_ns);
	p->delay_ns = MIN_OF(MAX_OF(delay_wanted(p), p->delay_ns ? fallen : 0), limit);
	p->delay_at_ns = now_ns;
}

/* Frames wait for longer than the queue is: no longer needed, or not to be had. What is oldest now is due. */
static void overrun(struct pacer *p, int64_t now_ns)
{
	entry_release(p, &p->overrun);
	if (p->count == 0)
		return;
	p->delay_ns = MIN_OF(p->delay_ns, MAX_OF(now_ns - p->entry[p->first].capture_ns, 0));
	memset(p->group_most_ns, 0, sizeof(p->group_most_ns));
}

void pacer_arrive(struct pacer *p, int64_t now_ns, int64_t capture_ns, void *frame)
{
	const int64_t age_ns = now_ns - capture_ns;

	p->arrived++;
	if (age_ns > p->wish.cap_ns || (p->count > 0 && capture_ns <= p->newest_capture_ns)) {
		p->late++;
		p->wish.release(p->wish.context, frame);
		return;
	}
	if (p->count == p->wish.capacity)
		overrun(p, now_ns);
	p->entry[(p->first + p->count) % PACER_CAPACITY] =
		(struct pacer_entry){ frame, capture_ns };
	p->count++;
	p->newest_capture_ns = capture_ns;
	delay_follow(p, now_ns, MAX_OF(age_ns, 0));
}

/* ----------------------------------------------------------------------------------- the clock */

/* How long the n-th waiting frame is overdue. */
static int64_t overdue_ns(const struct pacer *p, int n, int64_t now_ns)
{
	return now_ns - p->entry[(p->first + n) % PACER_CAPACITY].capture_ns - p->delay_ns;
}

static void *frame_choose(struct pacer *p, int64_t now_ns)
{
	const int64_t half = p->interval_ns / 2;

	while (p->count > 0 && now_ns - p->entry[p->first].capture_ns > p->wish.cap_ns)
		entry_release(p, &p->late);
	while (p->count > 1 && overdue_ns(p, 1, now_ns) >= half)
		entry_release(p, &p->skipped);
	if (p->count == 0 || overdue_ns(p, 0, now_ns) < -half) {
		p->repeated++;
		return NULL;
	}
	p->shown++;
	return entry_take(p);
}

void pacer_skip_to(struct pacer *p, int64_t now_ns)
{
	const int64_t behind = now_ns - pacer_next_ns(p);

	if (behind > 0)
		p->tick += (uint64_t)(behind / p->interval_ns) + 1;
}

void *pacer_tick(struct pacer *p, int64_t now_ns, uint64_t *ret_tick)
{
	int64_t behind = now_ns - pacer_next_ns(p);

	if (behind >= p->interval_ns) {
		const uint64_t missed = (uint64_t)(behind / p->interval_ns);

		p->missed += missed;
		p->tick += missed;
	}
	*ret_tick = p->tick++;
	/* Judged at its own instant: when the caller came a little late is no matter of the frame's. */
	return frame_choose(p, pacer_tick_ns(p, *ret_tick));
}
