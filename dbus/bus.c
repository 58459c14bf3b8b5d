/* The connection: made, kept, made again; events of the stream as signals. */
#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "dbus/bus_private.h"
#include "dbus/error.h"

#include <errno.h>

static const uint64_t retry_first_usec = 500 * 1000, retry_most_usec = 10 * 1000000;
static const uint64_t call_timeout_usec = 2 * 1000000; /* of calls that the loop waits for */
static const int64_t settle_ns = 2 * CLOCK_SECOND_NS;
static const uint64_t farewell_usec = 500 * 1000;
enum { NAME_EXISTS = 3 }; /* DBUS_REQUEST_NAME_REPLY_EXISTS */

static void connection_drop(struct bus *bus)
{
	bus_pending_drop(bus);
	bus->snapshot = sd_bus_message_unref(bus->snapshot);
	if (bus->connection)
		(void)sd_bus_detach_event(bus->connection);
	bus->connection = sd_bus_close_unref(bus->connection);
	bus->callers = (struct callers){ 0 };
	bus->named = false;
}

static int retry_later(struct bus *bus)
{
	const uint64_t wait = bus->retry_usec;

	bus->retry_usec = MIN_OF(2 * wait, retry_most_usec);
	(void)sd_event_source_set_time_relative(bus->retry, wait);
	return sd_event_source_set_enabled(bus->retry, SD_EVENT_ONESHOT);
}

/* Said once, until there is one. */
static void missing_tell(struct bus *bus, int r)
{
	bus->settled = true;
	if (!bus->told_missing)
		log_warning("There is no bus to be controlled by (%s); it is tried again.",
			    strerror(-r));
	bus->told_missing = true;
}

static int on_disconnected(sd_bus_message *message, void *context, sd_bus_error *error)
{
	struct bus *bus = context;

	(void)message;
	(void)error;
	if (bus->named) {
		bus->counters.disconnects++;
		log_warning("The bus is gone; the stream goes on and the bus is tried again.");
		bus->retry_usec = retry_first_usec;
		bus->told_missing = true;
	} else {
		missing_tell(bus, -ECONNRESET);
	}
	/* Not here: sd-bus is still dispatching on it. */
	return retry_later(bus);
}

/* Each reason once, until the name is ours. */
static void refusal_tell(struct bus *bus, int r)
{
	if (bus->name_error == r)
		return;
	bus->name_error = r;
	bus->told_missing = true;
	if (r == -EEXIST)
		log_error("The name %s is taken: another sana-streamd runs. Give this one another "
			  "name with --instance.",
			  bus->name);
	else if (r == -EACCES || r == -EPERM)
		log_error("The bus does not let this user own %s: is the bus policy installed?",
			  bus->name);
	else
		log_error("The bus does not give the name %s (%s); it is tried again.", bus->name,
			  strerror(-r));
}

static int on_name(sd_bus_message *reply, void *context, sd_bus_error *unused)
{
	struct bus *bus = context;
	uint32_t answer = 0;
	int r = -sd_bus_message_get_errno(reply);

	(void)unused;
	/* The connection ended before there was an answer: on_disconnected follows. */
	if (sd_bus_is_open(bus->connection) <= 0)
		return 0;
	bus->settled = true;
	if (r == 0)
		r = sd_bus_message_read(reply, "u", &answer);
	if (r >= 0 && answer == NAME_EXISTS)
		r = -EEXIST;
	if (r < 0) {
		refusal_tell(bus, r);
		return retry_later(bus);
	}
	bus->named = true;
	if (bus->told_missing)
		log_info("The bus is there: %s.", bus->name);
	bus->told_missing = false;
	bus->name_error = 0;
	bus->retry_usec = retry_first_usec;
	return 0;
}

/* Nothing here waits for the bus: one that takes connections and does not answer must not stop the loop. */
static int connect(struct bus *bus)
{
	int r;

	r = bus->options.session ? sd_bus_open_user(&bus->connection) :
				   sd_bus_open_system(&bus->connection);
	if (r >= 0)
		r = sd_bus_add_object_vtable(bus->connection, NULL, BUS_PATH, BUS_INTERFACE,
					     bus_vtable, bus);
	/* A match of what libsystemd itself says: the bus is not asked for it. */
	if (r >= 0)
		r = sd_bus_match_signal(bus->connection, NULL, "org.freedesktop.DBus.Local",
					"/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
					"Disconnected", on_disconnected, bus);
	if (r >= 0)
		r = sd_bus_request_name_async(bus->connection, NULL, bus->name, 0, on_name, bus);
	/* Of what is called from now on: callers may come before the name is ours. */
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(bus->connection, call_timeout_usec);
	/* The loop's end would flush it, however long that takes; bus_destroy does. */
	if (r >= 0)
		r = sd_bus_set_close_on_exit(bus->connection, false);
	if (r >= 0)
		r = sd_bus_attach_event(bus->connection, bus->options.event,
					SD_EVENT_PRIORITY_NORMAL + 10);
	return r;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *context)
{
	struct bus *bus = context;
	int r;

	(void)source;
	(void)usec;
	connection_drop(bus);
	r = connect(bus);
	if (r >= 0)
		return 0;
	connection_drop(bus);
	missing_tell(bus, r);
	return retry_later(bus);
}

static bool instance_valid(const char *instance)
{
	if (!*instance || strlen(instance) > 64 || (*instance >= '0' && *instance <= '9'))
		return false;
	for (const char *c = instance; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
		      (*c >= '0' && *c <= '9') || *c == '_' || *c == '-'))
			return false;
	return true;
}

int bus_create(const struct bus_options *options, struct bus **ret, struct sana_error *error)
{
	struct bus *bus;
	int r;

	if (options->instance && !instance_valid(options->instance))
		return sana_error_set(
			error, -EINVAL, "bus.instance",
			"\"%.64s\" is no instance name: letters, digits, '-' and '_', "
			"not a digit first.",
			options->instance);
	bus = calloc(1, sizeof(*bus));
	if (!bus)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	bus->options = *options;
	bus->retry_usec = retry_first_usec;
	bus->settle_by_ns = clock_now_ns() + settle_ns;
	(void)snprintf(bus->name, sizeof(bus->name), "%s%s%s", BUS_NAME,
		       options->instance ? "." : "", options->instance ? options->instance : "");
	bus_set_limits(bus, &options->limits);
	r = sd_event_add_time_relative(options->event, &bus->retry, CLOCK_MONOTONIC, 0, 0, on_retry,
				       bus);
	if (r < 0) {
		(void)bus_destroy(bus);
		return sana_error_set(error, r, "memory", "No timer for the bus: %s.",
				      strerror(-r));
	}
	*ret = bus;
	return 0;
}

bool bus_is_settled(const struct bus *bus)
{
	return bus->settled || clock_now_ns() > bus->settle_by_ns;
}

/* What waits to be sent; sd_bus_flush would wait for ever for a bus that takes nothing. */
static void farewell(struct bus *bus)
{
	const int64_t deadline_ns = clock_now_ns() + (int64_t)farewell_usec * 1000;
	uint64_t waiting = 0;

	while (bus->named && sd_bus_get_n_queued_write(bus->connection, &waiting) >= 0 &&
	       waiting > 0 && clock_now_ns() < deadline_ns) {
		const int r = sd_bus_process(bus->connection, NULL);

		if (r < 0 || (r == 0 && sd_bus_wait(bus->connection, farewell_usec / 10) < 0))
			break;
	}
}

struct bus *bus_destroy(struct bus *bus)
{
	if (!bus)
		return NULL;
	farewell(bus);
	connection_drop(bus);
	(void)sd_event_source_disable_unref(bus->retry);
	free(bus);
	return NULL;
}

void bus_set_limits(struct bus *bus, const struct bus_limits *limits)
{
	bus->options.limits = *limits;
	(void)snprintf(bus->group, sizeof(bus->group), "%s", limits->group ? limits->group : "");
	bus->options.limits.group = bus->group;
}

/* --------------------------------------------------------------------------------------- events */

static void snapshot_answer(struct bus *bus, const struct live_event *event)
{
	if (!bus->snapshot || event->ticket != bus->snapshot_ticket)
		return;
	if (event->name[0])
		(void)sd_bus_reply_method_errorf(bus->snapshot, BUS_ERROR "Failed", "%s",
						 event->text);
	else
		(void)sd_bus_reply_method_return(bus->snapshot, NULL);
	bus->snapshot = sd_bus_message_unref(bus->snapshot);
}

static void changed(struct bus *bus, const char *property)
{
	(void)sd_bus_emit_properties_changed(bus->connection, BUS_PATH, BUS_INTERFACE, property,
					     NULL);
}

static void signal_send(struct bus *bus, const struct live_event *e)
{
	sd_bus *connection = bus->connection;

	switch (e->kind) {
	case LIVE_EVENT_STATE:
		changed(bus, "State");
		changed(bus, "Fault");
		return;
	case LIVE_EVENT_PROPERTY:
		changed(bus, e->name);
		return;
	case LIVE_EVENT_PROMPT_APPLIED:
		(void)sd_bus_emit_signal(connection, BUS_PATH, BUS_INTERFACE, "PromptApplied", "tt",
					 e->ticket, e->chunk);
		return;
	case LIVE_EVENT_PROMPT_REFUSED:
		(void)sd_bus_emit_signal(connection, BUS_PATH, BUS_INTERFACE, "PromptRefused",
					 "tss", e->ticket, e->name, e->text);
		return;
	case LIVE_EVENT_FAULT:
		(void)sd_bus_emit_signal(connection, BUS_PATH, BUS_INTERFACE, "Fault", "ss",
					 e->name, e->text);
		changed(bus, "Fault");
		return;
	case LIVE_EVENT_SOURCE_LOST:
		(void)sd_bus_emit_signal(connection, BUS_PATH, BUS_INTERFACE, "SourceLost", "s",
					 e->text);
		return;
	case LIVE_EVENT_SOURCE_RESTORED:
		(void)sd_bus_emit_signal(connection, BUS_PATH, BUS_INTERFACE, "SourceRestored", "s",
					 e->text);
		return;
	case LIVE_EVENT_SNAPSHOT:
		snapshot_answer(bus, e);
		return;
	case LIVE_EVENT_COUNT:
		return;
	}
}

void bus_tell(struct bus *bus, const struct live_event *event)
{
	if (bus->named)
		signal_send(bus, event);
}
