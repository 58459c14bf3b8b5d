/* sana-ctl: one function a command. */
#include "tools/ctl/ctl.h"

#include "base/util.h"
#include "dbus/names.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* --------------------------------------------------------------------------------------- status */

static const char *const properties[] = { "State", "Prompt",  "Policy", "Source",    "Sinks",
					  "Model", "Backend", "Fault",	"LatencyNs", "Version" };

static void text_print(const char *name, const json_t *value)
{
	size_t i;
	json_t *item;

	(void)printf("%-10s", name);
	if (json_is_string(value))
		(void)printf("%s", json_string_value(value));
	else if (strcmp(name, "LatencyNs") == 0)
		(void)printf("%.3f s", (double)json_integer_value(value) / 1e9);
	else if (json_is_integer(value))
		(void)printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	json_array_foreach(value, i, item)(void)
		printf("%s%s", i ? ", " : "", json_string_value(item));
	(void)printf("\n");
}

int ctl_status(struct ctl *ctl)
{
	json_t *all = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
		json_t *value = ctl_property(ctl, properties[i]);

		if (!value) {
			json_decref(all);
			return i == 0 ? CTL_ABSENT : CTL_FAILED;
		}
		(void)json_object_set_new(all, properties[i], value);
	}
	if (ctl->json)
		return ctl_print(all);
	for (size_t i = 0; i < ARRAY_SIZE(properties); i++)
		text_print(properties[i], json_object_get(all, properties[i]));
	json_decref(all);
	return CTL_DONE;
}

/* --------------------------------------------------------------------------------------- prompt */

struct waiting {
	uint64_t ticket, chunk;
	int ended; /* 1: applied; −1: refused */
	char text[512];
};

static int on_applied(sd_bus_message *message, void *context, sd_bus_error *error)
{
	struct waiting *w = context;
	uint64_t ticket, chunk;

	(void)error;
	if (sd_bus_message_read(message, "tt", &ticket, &chunk) >= 0 && ticket >= w->ticket &&
	    w->ticket) {
		w->ended = 1;
		w->chunk = chunk;
	}
	return 0;
}

static int on_refused(sd_bus_message *message, void *context, sd_bus_error *error)
{
	struct waiting *w = context;
	const char *name, *text;
	uint64_t ticket;

	(void)error;
	if (sd_bus_message_read(message, "tss", &ticket, &name, &text) >= 0 &&
	    ticket == w->ticket && w->ticket) {
		w->ended = -1;
		(void)snprintf(w->text, sizeof(w->text), "%s", text);
	}
	return 0;
}

static int wait_for(struct ctl *ctl, struct waiting *w)
{
	int r = 1;

	while (r >= 0 && !w->ended) {
		r = sd_bus_process(ctl->bus, NULL);
		if (r == 0)
			r = sd_bus_wait(ctl->bus, UINT64_MAX);
	}
	if (r < 0 || w->ended < 0) {
		(void)fprintf(stderr, "sana-ctl: %s\n", r < 0 ? strerror(-r) : w->text);
		return CTL_FAILED;
	}
	return CTL_DONE;
}

int ctl_prompt(struct ctl *ctl, const char *text)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	struct waiting w = { 0 };
	json_t *answer;
	int status;

	/* Before the call, so that no signal is missed. */
	if (ctl->wait) {
		(void)sd_bus_match_signal(ctl->bus, NULL, ctl->name, BUS_PATH, BUS_INTERFACE,
					  "PromptApplied", on_applied, &w);
		(void)sd_bus_match_signal(ctl->bus, NULL, ctl->name, BUS_PATH, BUS_INTERFACE,
					  "PromptRefused", on_refused, &w);
	}
	status = ctl_call(ctl, &reply, "SetPrompt", "s", text);
	if (status != CTL_DONE)
		return status;
	if (sd_bus_message_read(reply, "t", &w.ticket) < 0)
		return CTL_FAILED;
	if (ctl->wait)
		status = wait_for(ctl, &w);
	if (status != CTL_DONE)
		return status;
	if (ctl->json) {
		answer = json_pack("{s:I}", "ticket", (json_int_t)w.ticket);
		if (ctl->wait)
			(void)json_object_set_new(answer, "chunk",
						  json_integer((json_int_t)w.chunk));
		return ctl_print(answer);
	}
	if (ctl->quiet)
		return CTL_DONE;
	(void)printf("ticket %llu", (unsigned long long)w.ticket);
	if (ctl->wait)
		(void)printf(", in force from chunk %llu on", (unsigned long long)w.chunk);
	(void)printf("\n");
	return CTL_DONE;
}

/* ---------------------------------------------------------------------------------------- lists */

static json_t *devices_json(sd_bus_message *reply)
{
	json_t *list = json_array();
	const char *identity, *description;
	int present;

	if (sd_bus_message_enter_container(reply, 'a', "(ssb)") < 0)
		return list;
	while (sd_bus_message_read(reply, "(ssb)", &identity, &description, &present) > 0)
		(void)json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "identity", identity,
							    "description", description, "present",
							    present));
	return list;
}

/* `now`: what is in force, marked. */
static int list_print(struct ctl *ctl, const char *method, const char *property,
		      const char *nothing)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	const int status = ctl_call(ctl, &reply, method, "");
	json_t *list, *now, *device, *name;
	size_t i, k;

	if (status != CTL_DONE)
		return status;
	list = devices_json(reply);
	now = ctl_property(ctl, property);
	if (ctl->json)
		return json_decref(now), ctl_print(list);
	if (json_array_size(list) == 0)
		(void)printf("%s\n", nothing);
	json_array_foreach(list, i, device)
	{
		const char *identity = json_string_value(json_object_get(device, "identity"));
		bool used = json_is_string(now) && strcmp(json_string_value(now), identity) == 0;

		json_array_foreach(now, k, name)
			used |= strcmp(json_string_value(name), identity) == 0;
		(void)printf("%c %-44s %s%s\n", used ? '*' : ' ', identity,
			     json_string_value(json_object_get(device, "description")),
			     json_is_true(json_object_get(device, "present")) ? "" : " (not now)");
	}
	json_decref(now);
	json_decref(list);
	return CTL_DONE;
}

int ctl_policy(struct ctl *ctl, const char *name)
{
	return name ? ctl_call(ctl, NULL, "SetPolicy", "s", name) :
		      list_print(ctl, "ListPolicies", "Policy", "There are no policies.");
}

int ctl_source(struct ctl *ctl, const char *identity)
{
	return identity ? ctl_call(ctl, NULL, "SetSource", "s", identity) :
			  list_print(ctl, "ListSources", "Source",
				     "There are no sources; sana-ctl doctor says why.");
}

int ctl_sinks(struct ctl *ctl, char **identities, int count)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
	int r;

	if (count == 0)
		return list_print(ctl, "ListSinks", "Sinks",
				  "There are no sinks; sana-ctl doctor says why.");
	r = ctl_call_new(ctl, BUS_INTERFACE, "SetSinks", &call);
	if (r >= 0)
		r = sd_bus_message_open_container(call, 'a', "s");
	/* "none" empties the list. */
	for (int i = 0; r >= 0 && i < count; i++)
		if (count > 1 || strcmp(identities[i], "none") != 0)
			r = sd_bus_message_append(call, "s", identities[i]);
	if (r >= 0)
		r = sd_bus_message_close_container(call);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, &reply);
	return r < 0 ? ctl_refused(ctl, &error, r) : CTL_DONE;
}

/* ----------------------------------------------------------------------------------- statistics */

static json_t *statistics_json(sd_bus_message *reply)
{
	json_t *all = json_object();
	const char *name, *type, *text;
	uint64_t value;

	if (sd_bus_message_enter_container(reply, 'a', "{sv}") < 0)
		return all;
	while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
		if (sd_bus_message_read(reply, "s", &name) < 0 ||
		    sd_bus_message_peek_type(reply, NULL, &type) < 0)
			break;
		if (strcmp(type, "s") == 0 && sd_bus_message_read(reply, "v", "s", &text) >= 0)
			(void)json_object_set_new(all, name, json_string(text));
		else if (strcmp(type, "t") == 0 &&
			 sd_bus_message_read(reply, "v", "t", &value) >= 0)
			(void)json_object_set_new(all, name, json_integer((json_int_t)value));
		else
			(void)sd_bus_message_skip(reply, "v");
		(void)sd_bus_message_exit_container(reply);
	}
	return all;
}

static void statistics_text(const json_t *all)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)all, name, value)
	{
		if (json_is_string(value))
			(void)printf("%-32s %s\n", name, json_string_value(value));
		else
			(void)printf("%-32s %" JSON_INTEGER_FORMAT "\n", name,
				     json_integer_value(value));
	}
}

int ctl_statistics(struct ctl *ctl)
{
	do {
		_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
		const int status = ctl_call(ctl, &reply, "GetStatistics", "");
		json_t *all;

		if (status != CTL_DONE)
			return status;
		all = statistics_json(reply);
		if (ctl->json && ctl->follow)
			(void)json_dumpf(all, stdout, JSON_COMPACT);
		else if (ctl->json)
			(void)json_dumpf(all, stdout, JSON_INDENT(1));
		else
			statistics_text(all);
		json_decref(all);
		(void)printf("\n");
		if (fflush(stdout) == EOF)
			return CTL_FAILED;
		if (ctl->follow)
			(void)sleep(1);
	} while (ctl->follow);
	return CTL_DONE;
}

/* ------------------------------------------------------------------------------------- snapshot */

int ctl_snapshot(struct ctl *ctl, const char *path)
{
	char partial[4096];
	const bool is_stdout = strcmp(path, "-") == 0;
	int fd, status;

	if (snprintf(partial, sizeof(partial), "%s.partial", path) >= (int)sizeof(partial)) {
		(void)fprintf(stderr, "sana-ctl: the path is too long.\n");
		return CTL_USAGE;
	}
	fd = is_stdout ? STDOUT_FILENO :
			 open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		(void)fprintf(stderr, "sana-ctl: %s: cannot write: %s.\n", partial,
			      strerror(errno));
		return CTL_FAILED;
	}
	status = ctl_call(ctl, NULL, "Snapshot", "h", fd);
	if (is_stdout)
		return status;
	(void)close(fd);
	if (status != CTL_DONE) {
		(void)unlink(partial);
		return status;
	}
	if (rename(partial, path) < 0) {
		(void)fprintf(stderr, "sana-ctl: %s: %s.\n", path, strerror(errno));
		return CTL_FAILED;
	}
	if (!ctl->quiet && !ctl->json)
		(void)printf("%s\n", path);
	return CTL_DONE;
}
