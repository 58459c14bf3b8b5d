/* sana-ctl: the bus. */
#include "tools/ctl/ctl.h"

#include "base/util.h"
#include "dbus/names.h"

#include <errno.h>
#include <stdarg.h>

int ctl_connect(struct ctl *ctl)
{
	int r = ctl->session ? sd_bus_open_user(&ctl->bus) : sd_bus_open_system(&ctl->bus);

	(void)snprintf(ctl->name, sizeof(ctl->name), "%s%s%s", BUS_NAME, ctl->instance ? "." : "",
		       ctl->instance ? ctl->instance : "");
	if (r >= 0)
		return CTL_DONE;
	(void)fprintf(stderr, "sana-ctl: there is no %s bus: %s.\n",
		      ctl->session ? "session" : "system", strerror(-r));
	return CTL_ABSENT;
}

static bool absent(const sd_bus_error *error)
{
	return sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER) ||
	       sd_bus_error_has_name(error, "org.freedesktop.systemd1.NoSuchUnit");
}

int ctl_refused(const struct ctl *ctl, const sd_bus_error *error, int r)
{
	static const struct {
		const char *name;
		int status;
	} statuses[] = {
		{ BUS_ERROR "NotAuthorized", CTL_REFUSED },
		{ BUS_ERROR "RateLimited", CTL_REFUSED },
		{ BUS_ERROR "Denied", CTL_REFUSED },
		{ SD_BUS_ERROR_ACCESS_DENIED, CTL_REFUSED },
		{ BUS_ERROR "Unsupported", CTL_UNSUPPORTED },
	};

	if (absent(error)) {
		(void)fprintf(
			stderr,
			"sana-ctl: no sana-streamd on the bus as %s. Start it: systemctl start "
			"sana-streamd%s%s\n",
			ctl->name, ctl->instance ? "@" : "", ctl->instance ? ctl->instance : "");
		return CTL_ABSENT;
	}
	(void)fprintf(stderr, "sana-ctl: %s\n",
		      error->message && *error->message ? error->message : strerror(-r));
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (sd_bus_error_has_name(error, statuses[i].name))
			return statuses[i].status;
	return CTL_FAILED;
}

int ctl_call_new(struct ctl *ctl, const char *interface, const char *method, sd_bus_message **ret)
{
	int r = sd_bus_message_new_method_call(ctl->bus, ret, ctl->name, BUS_PATH, interface,
					       method);

	if (r >= 0)
		r = sd_bus_message_set_auto_start(*ret, strcmp(method, "Start") == 0);
	if (r >= 0)
		r = sd_bus_message_set_allow_interactive_authorization(*ret, 1);
	return r;
}

int ctl_call(struct ctl *ctl, sd_bus_message **ret_reply, const char *method, const char *types,
	     ...)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL;
	sd_bus_message *reply = NULL;
	va_list list;
	int r;

	r = ctl_call_new(ctl, BUS_INTERFACE, method, &call);
	va_start(list, types);
	if (r >= 0 && *types)
		r = sd_bus_message_appendv(call, types, list);
	va_end(list);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, &reply);
	if (r < 0)
		return ctl_refused(ctl, &error, r);
	if (ret_reply)
		*ret_reply = reply;
	else
		(void)sd_bus_message_unref(reply);
	return CTL_DONE;
}

static json_t *basic_json(sd_bus_message *message, char type)
{
	union {
		const char *s;
		uint64_t t;
		int64_t x;
		int b;
	} value;

	if (sd_bus_message_read_basic(message, type, &value) < 0)
		return NULL;
	switch (type) {
	case 's':
		return json_string(value.s);
	case 't':
		return json_integer((json_int_t)value.t);
	case 'x':
		return json_integer((json_int_t)value.x);
	case 'b':
		return json_boolean(value.b);
	default:
		return NULL;
	}
}

json_t *ctl_property(struct ctl *ctl, const char *name)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
	const char *type = NULL;
	json_t *list;
	int r;

	r = ctl_call_new(ctl, "org.freedesktop.DBus.Properties", "Get", &call);
	if (r >= 0)
		r = sd_bus_message_append(call, "ss", BUS_INTERFACE, name);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, &reply);
	if (r < 0) {
		(void)ctl_refused(ctl, &error, r);
		return NULL;
	}
	if (sd_bus_message_peek_type(reply, NULL, &type) < 0 ||
	    sd_bus_message_enter_container(reply, 'v', type) < 0)
		return NULL;
	if (strcmp(type, "as") != 0)
		return basic_json(reply, type[0]);
	list = json_array();
	if (sd_bus_message_enter_container(reply, 'a', "s") < 0)
		return list;
	while (sd_bus_message_at_end(reply, 0) == 0)
		if (json_array_append_new(list, basic_json(reply, 's')) < 0)
			break;
	return list;
}

int ctl_print(json_t *value)
{
	int r = value ? json_dumpf(value, stdout, JSON_INDENT(1)) : -1;

	if (r == 0)
		r = putchar('\n') == EOF || fflush(stdout) == EOF;
	json_decref(value);
	return r ? CTL_FAILED : CTL_DONE;
}
