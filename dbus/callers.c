/* Token buckets of the bus's callers. */
#include "dbus/callers.h"

#include "base/clock.h"
#include "base/util.h"

/* A user who was here so lately keeps his place. */
static const int64_t busy_ns = 10 * CLOCK_SECOND_NS;
static const int64_t refusal_period_ns = 60 * CLOCK_SECOND_NS;

struct caller *callers_find(struct callers *callers, const char *name, int64_t now_ns)
{
	struct caller *oldest = &callers->caller[0];

	for (int i = 0; i < CALLERS; i++) {
		struct caller *c = &callers->caller[i];

		if (strncmp(c->name, name, sizeof(c->name) - 1) == 0) {
			c->seen_ns = now_ns;
			return c;
		}
		if (!c->name[0] || (oldest->name[0] && c->seen_ns < oldest->seen_ns))
			oldest = c;
	}
	callers->replaced += oldest->name[0] != '\0';
	*oldest = (struct caller){ .seen_ns = now_ns, .uid = -1, .pid = -1 };
	(void)snprintf(oldest->name, sizeof(oldest->name), "%s", name);
	return oldest;
}

struct quota *callers_quota(struct callers *callers, int64_t uid, int64_t now_ns)
{
	struct quota *oldest = &callers->quota[0];

	for (int i = 0; i < QUOTAS; i++) {
		struct quota *q = &callers->quota[i];

		if (q->seen_ns && q->uid == uid) {
			q->seen_ns = now_ns;
			return q;
		}
		if (q->seen_ns < oldest->seen_ns)
			oldest = q;
	}
	if (oldest->seen_ns && now_ns - oldest->seen_ns < busy_ns) {
		callers->shared++;
		return &callers->others;
	}
	*oldest = (struct quota){ .uid = uid, .seen_ns = now_ns };
	return oldest;
}

bool quota_refusal(struct quota *quota, int64_t now_ns, uint64_t *ret_unsaid)
{
	if (quota->refusal_ns && now_ns - quota->refusal_ns < refusal_period_ns) {
		quota->refusals++;
		return false;
	}
	*ret_unsaid = quota->refusals;
	quota->refusals = 0;
	quota->refusal_ns = now_ns;
	return true;
}

bool bucket_take(struct bucket *bucket, double per_second, double burst, int64_t now_ns)
{
	const double passed = (double)(now_ns - bucket->filled_ns) / (double)CLOCK_SECOND_NS;

	bucket->tokens = bucket->filled_ns ? bucket->tokens + passed * per_second : burst;
	bucket->filled_ns = now_ns;
	if (bucket->tokens > burst)
		bucket->tokens = burst;
	if (bucket->tokens < 1)
		return false;
	bucket->tokens -= 1;
	return true;
}
