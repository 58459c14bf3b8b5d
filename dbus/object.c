/* The object: what each method and property is in terms of the stream. */
#include "base/util.h"
#include "dbus/bus_private.h"
#include "dbus/error.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* ----------------------------------------------------------------------------- before each method */

/* 0, or the error that a caller gets who calls too often. */
static int admit(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	const struct bus_limits *limits = &bus->options.limits;
	struct caller *caller = bus_caller(bus, message);

	bus->counters.calls++;
	if (bucket_take(&caller->calls, limits->calls_per_second, limits->call_burst,
			bus_now_ns(bus)))
		return 0;
	bus->counters.rate_limited++;
	return bus_error_say(error, "RateLimited",
			     "More than %d calls a second: wait and call again.",
			     limits->calls_per_second);
}

/* -------------------------------------------------------------------------------------- prompts */

static int prompt_admit(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	const struct bus_limits *limits = &bus->options.limits;
	const double per_second = limits->prompts_per_minute / 60.0;
	struct caller *caller = bus_caller(bus, message);
	struct quota *quota = bus_quota(bus, message);

	if (bucket_take(&caller->prompts, per_second, limits->prompt_burst, bus_now_ns(bus)) &&
	    bucket_take(&quota->prompts, CALLERS_OF_USER * per_second,
			CALLERS_OF_USER * limits->prompt_burst, bus_now_ns(bus)))
		return 0;
	bus->counters.rate_limited++;
	bus_audit_refusal(bus, message, "rate-limited");
	return bus_error_say(error, "RateLimited",
			     "More than %d prompts a minute: wait and call again.",
			     limits->prompts_per_minute);
}

static int prompt_set(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	struct sana_error failure = { 0 };
	uint64_t ticket;
	const char *text;
	int r;

	r = sd_bus_message_read(message, "s", &text);
	if (r < 0)
		return r;
	r = prompt_admit(bus, message, error);
	if (r < 0)
		return r;
	r = live_stream_set_prompt(bus->options.stream, text, &ticket, &failure);
	if (r < 0) {
		bus_audit(bus, message,
			  strcmp(failure.name, "prompt.denied") == 0 ? "denied" : "failed",
			  failure.name, text, 0);
		return bus_error_take(error, &failure);
	}
	bus_audit(bus, message, "allowed", "", text, ticket);
	return sd_bus_reply_method_return(message, "t", ticket);
}

static int on_set_prompt(sd_bus_message *message, void *context, sd_bus_error *error)
{
	const int r = admit(context, message, error);

	return r < 0 ? r : bus_authorise(context, message, BUS_ACTION_CONTROL, prompt_set, error);
}

/* ------------------------------------------------------------- requests that are answered at once */

static int request_end(struct bus *bus, sd_bus_message *message, int r,
		       const struct sana_error *failure, const char *argument, sd_bus_error *error)
{
	bus_audit(bus, message, r < 0 ? "failed" : "allowed", r < 0 ? failure->name : "", argument,
		  0);
	return r < 0 ? bus_error_take(error, failure) : sd_bus_reply_method_return(message, NULL);
}

static int text_request(struct bus *bus, sd_bus_message *message, sd_bus_error *error,
			int (*request)(struct live_stream *, const char *, struct sana_error *))
{
	struct sana_error failure = { 0 };
	const char *text;
	int r = sd_bus_message_read(message, "s", &text);

	if (r < 0)
		return r;
	r = request(bus->options.stream, text, &failure);
	return request_end(bus, message, r, &failure, text, error);
}

static int plain_request(struct bus *bus, sd_bus_message *message, sd_bus_error *error,
			 int (*request)(struct live_stream *, struct sana_error *))
{
	struct sana_error failure = { 0 };
	const int r = request(bus->options.stream, &failure);

	return request_end(bus, message, r, &failure, "", error);
}

/* Handlers of methods that change something: on_NAME lets NAME_act run once the caller may. */
#define CONTROL(name, call)                                                                    \
	static int name##_act(struct bus *bus, sd_bus_message *message, sd_bus_error *error)   \
	{                                                                                      \
		return call;                                                                   \
	}                                                                                      \
	static int on_##name(sd_bus_message *message, void *context, sd_bus_error *error)      \
	{                                                                                      \
		const int r = admit(context, message, error);                                  \
                                                                                               \
		return r < 0 ? r :                                                             \
			       bus_authorise(context, message, BUS_ACTION_CONTROL, name##_act, \
					     error);                                           \
	}

CONTROL(set_policy, text_request(bus, message, error, live_stream_set_policy))
CONTROL(set_source, text_request(bus, message, error, live_stream_set_source))
CONTROL(start, plain_request(bus, message, error, live_stream_start))
CONTROL(stop, plain_request(bus, message, error, live_stream_stop))
CONTROL(pause, plain_request(bus, message, error, live_stream_pause))
CONTROL(resume, plain_request(bus, message, error, live_stream_resume))
CONTROL(reset, plain_request(bus, message, error, live_stream_reset))
CONTROL(reload, plain_request(bus, message, error, live_stream_reload))

static int sinks_request(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	char **list = NULL;
	struct sana_error failure = { 0 };
	char joined[1024] = "";
	size_t used = 0;
	int count = 0, r;

	r = sd_bus_message_read_strv(message, &list);
	if (r < 0)
		return r;
	for (; list && list[count]; count++)
		if (used < sizeof(joined))
			used += (size_t)snprintf(joined + used, sizeof(joined) - used, "%s%s",
						 count ? " " : "", list[count]);
	r = live_stream_set_sinks(bus->options.stream, (const char *const *)list, count, &failure);
	r = request_end(bus, message, r, &failure, joined, error);
	for (int i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
	return r;
}

CONTROL(set_sinks, sinks_request(bus, message, error))

/* ---------------------------------------------------------------------------------------- lists */

static int list_answer(struct bus *bus, sd_bus_message *message, sd_bus_error *error,
		       int (*list)(struct live_stream *, struct live_device *, int))
{
	struct live_device *devices;
	sd_bus_message *reply = NULL;
	int count, r;

	r = admit(bus, message, error);
	if (r < 0)
		return r;
	devices = calloc(BUS_DEVICES, sizeof(*devices));
	if (!devices)
		return -ENOMEM;
	count = MIN_OF(list(bus->options.stream, devices, BUS_DEVICES), BUS_DEVICES);
	r = sd_bus_message_new_method_return(message, &reply);
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "(ssb)");
	for (int i = 0; r >= 0 && i < count; i++)
		r = sd_bus_message_append(reply, "(ssb)", devices[i].identity,
					  devices[i].description, (int)devices[i].present);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	(void)sd_bus_message_unref(reply);
	free(devices);
	return r;
}

static int on_list_sources(sd_bus_message *message, void *context, sd_bus_error *error)
{
	return list_answer(context, message, error, live_stream_list_sources);
}

static int on_list_sinks(sd_bus_message *message, void *context, sd_bus_error *error)
{
	return list_answer(context, message, error, live_stream_list_sinks);
}

static int on_list_policies(sd_bus_message *message, void *context, sd_bus_error *error)
{
	return list_answer(context, message, error, live_stream_list_policies);
}

/* ----------------------------------------------------------------------------------- statistics */

static int statistic_append(sd_bus_message *reply, const struct live_statistic *s)
{
	return s->is_text ? sd_bus_message_append(reply, "{sv}", s->name, "s", s->text) :
			    sd_bus_message_append(reply, "{sv}", s->name, "t", s->value);
}

static int own_statistics_append(struct bus *bus, sd_bus_message *reply)
{
	return sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "bus-calls", "t",
				     bus->counters.calls, "bus-rate-limited", "t",
				     bus->counters.rate_limited, "bus-not-authorized", "t",
				     bus->counters.not_authorized, "bus-disconnects", "t",
				     bus->counters.disconnects, "bus-callers-replaced", "t",
				     bus->callers.replaced + bus->callers.shared);
}

static int on_get_statistics(sd_bus_message *message, void *context, sd_bus_error *error)
{
	enum { STATISTICS = 256 };
	struct bus *bus = context;
	struct live_statistic *list;
	sd_bus_message *reply = NULL;
	int count, r;

	r = admit(bus, message, error);
	if (r < 0)
		return r;
	list = calloc(STATISTICS, sizeof(*list));
	if (!list)
		return -ENOMEM;
	count = MIN_OF(live_stream_statistics(bus->options.stream, list, STATISTICS), STATISTICS);
	r = sd_bus_message_new_method_return(message, &reply);
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "{sv}");
	for (int i = 0; r >= 0 && i < count; i++)
		r = statistic_append(reply, &list[i]);
	if (r >= 0)
		r = own_statistics_append(bus, reply);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	(void)sd_bus_message_unref(reply);
	free(list);
	return r;
}

/* ------------------------------------------------------------------------------------- snapshot */

static int snapshot_act(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	struct sana_error failure = { 0 };
	int fd, r;

	if (bus->snapshot)
		return bus_error_say(error, "Busy", "Another snapshot is being written.");
	r = sd_bus_message_read(message, "h", &fd);
	if (r < 0)
		return r;
	/* The message keeps its own; the stream takes over a copy. */
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	r = live_stream_snapshot(bus->options.stream, fd, &bus->snapshot_ticket, &failure);
	bus_audit(bus, message, r < 0 ? "failed" : "allowed", r < 0 ? failure.name : "", "", 0);
	if (r < 0)
		return bus_error_take(error, &failure);
	bus->snapshot = sd_bus_message_ref(message);
	return 1;
}

static int on_snapshot(sd_bus_message *message, void *context, sd_bus_error *error)
{
	const int r = admit(context, message, error);

	return r < 0 ? r :
		       bus_authorise(context, message, BUS_ACTION_SNAPSHOT, snapshot_act, error);
}

/* ----------------------------------------------------------------------------------- properties */

static int text_append(sd_bus_message *reply, const char *text)
{
	return sd_bus_message_append(reply, "s", text);
}

#define TEXT_PROPERTY(name, value)                                                          \
	static int get_##name(sd_bus *connection, const char *path, const char *interface,  \
			      const char *property, sd_bus_message *reply, void *context,   \
			      sd_bus_error *error)                                          \
	{                                                                                   \
		const struct bus *bus = context;                                            \
		const struct live_stream *stream = bus->options.stream;                     \
                                                                                            \
		(void)connection, (void)path, (void)interface, (void)property, (void)error; \
		return text_append(reply, value);                                           \
	}

TEXT_PROPERTY(state, live_state_name(live_stream_state(stream)))
TEXT_PROPERTY(prompt, live_stream_prompt(stream))
TEXT_PROPERTY(policy, live_stream_policy(stream))
TEXT_PROPERTY(source, live_stream_source(stream))
TEXT_PROPERTY(model, live_stream_model(stream))
TEXT_PROPERTY(backend, live_stream_backend(stream))
TEXT_PROPERTY(fault, live_stream_fault(stream))

static int get_version(sd_bus *connection, const char *path, const char *interface,
		       const char *property, sd_bus_message *reply, void *context,
		       sd_bus_error *error)
{
	(void)connection, (void)path, (void)interface, (void)property, (void)context, (void)error;
	return text_append(reply, SANA_VERSION);
}

static int get_sinks(sd_bus *connection, const char *path, const char *interface,
		     const char *property, sd_bus_message *reply, void *context,
		     sd_bus_error *error)
{
	const struct bus *bus = context;
	const char *const *list = NULL;
	const int count = live_stream_sinks(bus->options.stream, &list);
	int r = sd_bus_message_open_container(reply, 'a', "s");

	(void)connection, (void)path, (void)interface, (void)property, (void)error;
	for (int i = 0; r >= 0 && i < count; i++)
		r = sd_bus_message_append(reply, "s", list[i]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_latency(sd_bus *connection, const char *path, const char *interface,
		       const char *property, sd_bus_message *reply, void *context,
		       sd_bus_error *error)
{
	const struct bus *bus = context;

	(void)connection, (void)path, (void)interface, (void)property, (void)error;
	return sd_bus_message_append(reply, "x", live_stream_latency_ns(bus->options.stream));
}

#define ANYBODY SD_BUS_VTABLE_UNPRIVILEGED /* each method asks for itself */
#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE

/* A table. */
/* clang-format off */
const sd_bus_vtable bus_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD_WITH_ARGS("SetPrompt", SD_BUS_ARGS("s", text), SD_BUS_RESULT("t", ticket), on_set_prompt, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("SetPolicy", SD_BUS_ARGS("s", name), SD_BUS_NO_RESULT, on_set_policy, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_start, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_stop, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Pause", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_pause, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_resume, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Reset", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_reset, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_reload, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("ListSources", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ssb)", sources), on_list_sources, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("ListSinks", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ssb)", sinks), on_list_sinks, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("ListPolicies", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ssb)", policies), on_list_policies, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("SetSource", SD_BUS_ARGS("s", identity), SD_BUS_NO_RESULT, on_set_source, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("SetSinks", SD_BUS_ARGS("as", identities), SD_BUS_NO_RESULT, on_set_sinks, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("GetStatistics", SD_BUS_NO_ARGS, SD_BUS_RESULT("a{sv}", statistics),
	       on_get_statistics, ANYBODY),
	SD_BUS_METHOD_WITH_ARGS("Snapshot", SD_BUS_ARGS("h", file), SD_BUS_NO_RESULT, on_snapshot, ANYBODY),
	SD_BUS_PROPERTY("State", "s", get_state, 0, CHANGES),
	SD_BUS_PROPERTY("Prompt", "s", get_prompt, 0, CHANGES),
	SD_BUS_PROPERTY("Policy", "s", get_policy, 0, CHANGES),
	SD_BUS_PROPERTY("Source", "s", get_source, 0, CHANGES),
	SD_BUS_PROPERTY("Sinks", "as", get_sinks, 0, CHANGES),
	SD_BUS_PROPERTY("Model", "s", get_model, 0, CHANGES),
	SD_BUS_PROPERTY("Backend", "s", get_backend, 0, CHANGES),
	SD_BUS_PROPERTY("Fault", "s", get_fault, 0, CHANGES),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("LatencyNs", "x", get_latency, 0, 0),
	SD_BUS_SIGNAL_WITH_ARGS("PromptApplied", SD_BUS_ARGS("t", ticket, "t", chunk), 0),
	SD_BUS_SIGNAL_WITH_ARGS("PromptRefused", SD_BUS_ARGS("t", ticket, "s", name, "s", text), 0),
	SD_BUS_SIGNAL_WITH_ARGS("Fault", SD_BUS_ARGS("s", kind, "s", text), 0),
	SD_BUS_SIGNAL_WITH_ARGS("SourceLost", SD_BUS_ARGS("s", identity), 0),
	SD_BUS_SIGNAL_WITH_ARGS("SourceRestored", SD_BUS_ARGS("s", identity), 0),
	SD_BUS_VTABLE_END,
};
/* clang-format on */
