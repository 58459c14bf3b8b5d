/* Events and faults: bounded, counted, said once per kind. */
#include "daemon/pipeline_events.h"

#include "base/util.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int events_init(struct pipeline_events *e)
{
	(void)pthread_mutex_init(&e->lock, NULL);
	for (int i = 0; i < FAULT_SCOPES; i++)
		e->present[i] = -1;
	e->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return e->fd < 0 ? -errno : 0;
}

void events_finish(struct pipeline_events *e)
{
	if (e->fd <= 0)
		return;
	(void)close(e->fd);
	e->fd = 0;
	(void)pthread_mutex_destroy(&e->lock);
}

static bool same_matter(const struct pipeline_event *a, const struct pipeline_event *b)
{
	return a->kind == b->kind && strcmp(a->name, b->name) == 0;
}

/* The lock is held. */
static void send_locked(struct pipeline_events *e, const struct pipeline_event *event)
{
	struct pipeline_event *to = NULL;

	/* Progress of loading is only interesting as it is now. */
	if (event->kind == PIPELINE_EVENT_LOADING || e->count == EVENTS_WAITING)
		for (int i = 0; i < e->count && !to; i++) {
			struct pipeline_event *old = &e->event[(e->first + i) % EVENTS_WAITING];

			if (same_matter(old, event))
				to = old;
		}
	if (!to && e->count == EVENTS_WAITING) {
		e->dropped++;
		return;
	}
	if (!to)
		to = &e->event[(e->first + e->count++) % EVENTS_WAITING];
	else if (e->count == EVENTS_WAITING)
		e->dropped++;
	*to = *event;
	(void)eventfd_write(e->fd, 1);
}

void events_send(struct pipeline_events *e, const struct pipeline_event *event)
{
	(void)pthread_mutex_lock(&e->lock);
	send_locked(e, event);
	(void)pthread_mutex_unlock(&e->lock);
}

bool events_next(struct pipeline_events *e, struct pipeline_event *ret)
{
	eventfd_t value;
	bool there;

	(void)pthread_mutex_lock(&e->lock);
	there = e->count > 0;
	if (there) {
		*ret = e->event[e->first];
		e->first = (e->first + 1) % EVENTS_WAITING;
		e->count--;
	} else {
		(void)eventfd_read(e->fd, &value);
	}
	(void)pthread_mutex_unlock(&e->lock);
	return there;
}

/* -------------------------------------------------------------------------------------- faults */

static int fault_index(struct pipeline_events *e, const char *name)
{
	for (int i = 0; i < e->faults; i++)
		if (strcmp(e->fault[i].name, name) == 0)
			return i;
	/* The last one stands for all that have no room. */
	if (e->faults == PIPELINE_FAULTS - 1)
		name = "other";
	if (e->faults == PIPELINE_FAULTS)
		return PIPELINE_FAULTS - 1;
	(void)snprintf(e->fault[e->faults].name, sizeof(e->fault->name), "%s", name);
	return e->faults++;
}

static void present_refresh(struct pipeline_events *e)
{
	for (int i = 0; i < e->faults; i++)
		e->fault[i].present = false;
	for (int i = 0; i < FAULT_SCOPES; i++)
		if (e->present[i] >= 0)
			e->fault[e->present[i]].present = true;
}

static void fault_say(struct pipeline_events *e, int fault, bool on, const char *text)
{
	struct pipeline_event event = { .kind = PIPELINE_EVENT_FAULT, .on = on };

	if (on)
		(void)snprintf(e->fault[fault].text, sizeof(e->fault->text), "%s", text);
	memcpy(event.name, e->fault[fault].name, sizeof(event.name));
	(void)snprintf(event.text, sizeof(event.text), "%s", text);
	send_locked(e, &event);
}

void fault_set(struct pipeline_events *e, enum fault_scope scope, const struct sana_error *error)
{
	int fault, before;

	(void)pthread_mutex_lock(&e->lock);
	fault = fault_index(e, error->name);
	before = e->present[scope];
	e->fault[fault].count++;
	e->present[scope] = fault;
	present_refresh(e);
	if (before != fault) {
		if (before >= 0 && !e->fault[before].present)
			fault_say(e, before, false, "");
		fault_say(e, fault, true, error->text);
	}
	(void)pthread_mutex_unlock(&e->lock);
}

void fault_note(struct pipeline_events *e, const struct sana_error *error)
{
	int fault;

	(void)pthread_mutex_lock(&e->lock);
	fault = fault_index(e, error->name);
	if (e->fault[fault].count++ == 0)
		fault_say(e, fault, true, error->text);
	(void)pthread_mutex_unlock(&e->lock);
}

bool fault_is_present(struct pipeline_events *e, enum fault_scope scope)
{
	bool present;

	(void)pthread_mutex_lock(&e->lock);
	present = e->present[scope] >= 0;
	(void)pthread_mutex_unlock(&e->lock);
	return present;
}

void fault_clear(struct pipeline_events *e, enum fault_scope scope)
{
	int before;

	(void)pthread_mutex_lock(&e->lock);
	before = e->present[scope];
	e->present[scope] = -1;
	if (before >= 0) {
		present_refresh(e);
		if (!e->fault[before].present)
			fault_say(e, before, false, "");
	}
	(void)pthread_mutex_unlock(&e->lock);
}

int faults_copy(struct pipeline_events *e, struct pipeline_fault_count *ret, uint64_t *ret_dropped)
{
	int count;

	(void)pthread_mutex_lock(&e->lock);
	count = e->faults;
	memcpy(ret, e->fault, sizeof(*ret) * (size_t)count);
	*ret_dropped = e->dropped;
	(void)pthread_mutex_unlock(&e->lock);
	return count;
}
