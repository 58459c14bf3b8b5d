/* The way in from outside: the bus, and the guard that screens and notes down. */
#include "daemon/main_door.h"

#include "base/util.h"

static struct guard_options guard_options_of(const struct settings *s)
{
	return (struct guard_options){
		.prompt_max_bytes = s->prompt.max_bytes,
		.deny_list = s->prompt.deny_list,
		.audit_log = s->audit.log,
		.key_file = s->audit.key_file,
		.audit_max_bytes = (int64_t)s->audit.max_kibibytes * 1024,
		.audit_text = s->audit.text,
	};
}

static struct bus_limits bus_limits_of(const struct settings *s)
{
	return (struct bus_limits){
		.group = s->bus.group,
		.calls_per_second = s->bus.calls_per_second,
		.call_burst = s->bus.call_burst,
		.prompts_per_minute = s->bus.prompts_per_minute,
		.prompt_burst = s->bus.prompt_burst,
	};
}

static void audit(void *context, const struct bus_verdict *verdict)
{
	const struct main_door *door = context;
	const bool prompt = verdict->method && strcmp(verdict->method, "SetPrompt") == 0;

	guard_audit(door->guard, &(struct guard_record){
					 .method = verdict->method ? verdict->method : "",
					 .sender = verdict->sender,
					 .decision = verdict->decision,
					 .reason = verdict->reason,
					 .uid = verdict->uid,
					 .pid = verdict->pid,
					 .ticket = verdict->ticket,
					 .prompt = prompt ? verdict->argument : NULL,
					 .argument = prompt ? "" : verdict->argument,
					 .model = live_stream_model(door->stream),
					 .policy = live_stream_policy(door->stream),
				 });
}

/* One that lets the configuration's own prompt in. */
static int guard_make(const struct main_config *config, struct guard **ret,
		      struct sana_error *error)
{
	const struct guard_options options = guard_options_of(config->settings);
	struct guard *guard;
	int r;

	r = guard_create(&options, &guard, error);
	if (r < 0)
		return r;
	if (*config->settings->prompt.initial)
		r = guard_check_prompt(guard, config->settings->prompt.initial, error);
	if (r < 0) {
		(void)guard_destroy(guard);
		return r;
	}
	*ret = guard;
	return 0;
}

int main_door_guard(struct main_door *door, const struct main_config *config,
		    struct sana_error *error)
{
	return guard_make(config, &door->guard, error);
}

int main_door_bus(struct main_door *door, const struct main_config *config,
		  struct live_stream *stream, sd_event *event, const char *instance, bool session,
		  struct sana_error *error)
{
	const struct bus_options options = {
		.stream = stream,
		.event = event,
		.instance = instance,
		.session = session,
		.limits = bus_limits_of(config->settings),
		.audit = audit,
		.context = door,
	};

	door->stream = stream;
	return bus_create(&options, &door->bus, error);
}

int main_door_try(const struct main_config *config, struct sana_error *error)
{
	struct guard *guard = NULL;
	const int r = guard_make(config, &guard, error);

	(void)guard_destroy(guard);
	return r;
}

int main_door_update(struct main_door *door, const struct main_config *config,
		     struct sana_error *error)
{
	const struct guard_options options = guard_options_of(config->settings);
	const struct bus_limits limits = bus_limits_of(config->settings);
	const int r = guard_update(door->guard, &options, error);

	if (r >= 0 && door->bus)
		bus_set_limits(door->bus, &limits);
	return r;
}

void main_door_close(struct main_door *door)
{
	door->bus = bus_destroy(door->bus);
	door->guard = guard_destroy(door->guard);
}
