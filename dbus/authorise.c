/* Who may change something: polkit's answer, or a rule of our own where there is no polkit. */
#include "base/log.h"
#include "base/util.h"
#include "dbus/bus_private.h"
#include "dbus/error.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

static const uint64_t polkit_timeout_usec = 120 * 1000000ull; /* a person may type a password */

int64_t bus_now_ns(struct bus *bus)
{
	uint64_t now = 0;

	(void)sd_event_now(bus->options.event, CLOCK_MONOTONIC, &now);
	return (int64_t)now * 1000;
}

struct caller *bus_caller(struct bus *bus, sd_bus_message *message)
{
	const char *sender = sd_bus_message_get_sender(message);

	return callers_find(&bus->callers, sender ? sender : "?", bus_now_ns(bus));
}

/* Asks the bus, and waits for it as long as the connection lets a call wait. False: it does not say. */
static bool caller_look_up(struct bus *bus, sd_bus_message *message)
{
	struct caller *caller = bus_caller(bus, message);
	sd_bus_creds *creds = NULL;
	uid_t uid;
	pid_t pid;

	if (caller->looked_up)
		return true;
	if (sd_bus_query_sender_creds(message, SD_BUS_CREDS_EUID | SD_BUS_CREDS_PID, &creds) < 0)
		return false;
	caller->looked_up = true;
	if (sd_bus_creds_get_euid(creds, &uid) >= 0)
		caller->uid = (int64_t)uid;
	if (sd_bus_creds_get_pid(creds, &pid) >= 0)
		caller->pid = pid;
	(void)sd_bus_creds_unref(creds);
	return true;
}

void bus_audit(struct bus *bus, sd_bus_message *message, const char *decision, const char *reason,
	       const char *argument, uint64_t ticket)
{
	const struct caller *caller = bus_caller(bus, message);
	const char *sender = sd_bus_message_get_sender(message);

	if (bus->options.audit)
		bus->options.audit(bus->options.context,
				   &(struct bus_verdict){
					   .method = sd_bus_message_get_member(message),
					   .sender = sender ? sender : "",
					   .uid = caller->uid,
					   .pid = caller->pid,
					   .decision = decision,
					   .reason = reason,
					   .argument = argument,
					   .ticket = ticket,
				   });
}

struct quota *bus_quota(struct bus *bus, sd_bus_message *message)
{
	return callers_quota(&bus->callers, bus_caller(bus, message)->uid, bus_now_ns(bus));
}

void bus_audit_refusal(struct bus *bus, sd_bus_message *message, const char *decision)
{
	char reason[64] = "";
	uint64_t unsaid;

	if (!quota_refusal(bus_quota(bus, message), bus_now_ns(bus), &unsaid))
		return;
	if (unsaid)
		(void)snprintf(reason, sizeof(reason), "%llu more before it",
			       (unsigned long long)unsaid);
	bus_audit(bus, message, decision, reason, "", 0);
}

static bool in_group(uid_t uid, const char *name)
{
	enum { GROUPS = 256, TEXT_BYTES = 16384 };
	char text[TEXT_BYTES];
	struct passwd passwd, *user = NULL;
	struct group group, *found = NULL;
	gid_t list[GROUPS], wanted;
	int count = GROUPS;

	if (!*name || getgrnam_r(name, &group, text, sizeof(text), &found) != 0 || !found)
		return false;
	wanted = found->gr_gid;
	if (getpwuid_r(uid, &passwd, text, sizeof(text), &user) != 0 || !user)
		return false;
	if (getgrouplist(user->pw_name, user->pw_gid, list, &count) < 0)
		return false;
	for (int i = 0; i < count; i++)
		if (list[i] == wanted)
			return true;
	return false;
}

/* Without polkit: root, our own user, the group. Never everybody. */
static bool allowed_here(struct bus *bus, sd_bus_message *message)
{
	const struct caller *caller = bus_caller(bus, message);

	if (caller->uid < 0)
		return false;
	return caller->uid == 0 || caller->uid == (int64_t)geteuid() ||
	       in_group((uid_t)caller->uid, bus->group);
}

static int refuse(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	bus->counters.not_authorized++;
	bus_audit_refusal(bus, message, "not-authorized");
	return bus_error_say(error, "NotAuthorized",
			     "You may not do this: be root or a member of the group \"%s\", or let "
			     "polkit allow it.",
			     bus->group);
}

static int refuse_unknown(struct bus *bus, sd_bus_message *message, sd_bus_error *error)
{
	bus->counters.not_authorized++;
	bus_audit_refusal(bus, message, "not-authorized");
	return bus_error_say(error, "NotAuthorized", "The bus does not say who calls: call again.");
}

static int decide_here(struct bus *bus, sd_bus_message *message, bus_action action,
		       sd_bus_error *error)
{
	return allowed_here(bus, message) ? action(bus, message, error) :
					    refuse(bus, message, error);
}

static void pending_free(struct bus_pending *pending)
{
	pending->message = sd_bus_message_unref(pending->message);
	pending->slot = sd_bus_slot_unref(pending->slot);
}

void bus_pending_drop(struct bus *bus)
{
	for (int i = 0; i < BUS_PENDING; i++)
		pending_free(&bus->pending[i]);
}

/* Polkit is not installed, or its bus name cannot be had. */
static bool polkit_is_missing(const sd_bus_error *error)
{
	static const char *const names[] = {
		SD_BUS_ERROR_SERVICE_UNKNOWN,
		SD_BUS_ERROR_NAME_HAS_NO_OWNER,
		"org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
		"org.freedesktop.systemd1.NoSuchUnit",
		"org.freedesktop.systemd1.UnitMasked",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (sd_bus_error_has_name(error, names[i]))
			return true;
	return false;
}

static int answer_read(sd_bus_message *reply, bool *ret_authorised)
{
	int authorised = 0, challenge = 0;
	int r = sd_bus_message_enter_container(reply, 'r', "bba{ss}");

	if (r >= 0)
		r = sd_bus_message_read(reply, "bb", &authorised, &challenge);
	*ret_authorised = r >= 0 && authorised;
	return r;
}

/* Runs the kept call, or refuses it, and sends what it says. */
static int on_answer(sd_bus_message *reply, void *context, sd_bus_error *unused)
{
	struct bus_pending *pending = context;
	struct bus *bus = pending->bus;
	sd_bus_message *message = pending->message;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	bool authorised = false;
	int r;

	(void)unused;
	pending->message = NULL; /* the place is free for what follows from the action */
	/* His entry may have made room meanwhile. */
	(void)caller_look_up(bus, message);
	if (!sd_bus_message_is_method_error(reply, NULL)) {
		(void)answer_read(reply, &authorised);
		r = authorised ? pending->action(bus, message, &error) :
				 refuse(bus, message, &error);
	} else if (polkit_is_missing(sd_bus_message_get_error(reply))) {
		if (!bus->no_polkit)
			log_notice("There is no polkit: root, this service's user and the group "
				   "\"%s\" may control the stream.",
				   bus->group);
		bus->no_polkit = true;
		r = decide_here(bus, message, pending->action, &error);
	} else {
		log_warning("polkit does not answer: %s", sd_bus_message_get_error(reply)->message);
		r = decide_here(bus, message, pending->action, &error);
	}
	if (r < 0 || sd_bus_error_is_set(&error))
		(void)sd_bus_reply_method_errno(message, r < 0 ? -r : EIO, &error);
	sd_bus_error_free(&error);
	(void)sd_bus_message_unref(message);
	pending->slot = sd_bus_slot_unref(pending->slot);
	return 1;
}

/* NULL: too many wait, of all or of this user. */
static struct bus_pending *pending_take(struct bus *bus, int64_t uid)
{
	struct bus_pending *unused = NULL;
	int same = 0;

	for (int i = 0; i < BUS_PENDING; i++) {
		struct bus_pending *p = &bus->pending[i];

		if (!p->message && !p->slot)
			unused = p;
		else
			same += p->uid == uid;
	}
	return same < BUS_PENDING_EACH ? unused : NULL;
}

/* Texts of a call, which is kept until polkit has answered. */
static bool is_small(sd_bus_message *message)
{
	const char *contents, *text;
	size_t bytes = 0;
	char type = 0;

	if (sd_bus_message_peek_type(message, &type, &contents) <= 0)
		return true;
	if (type == 'a' && sd_bus_message_enter_container(message, 'a', contents) > 0)
		while (sd_bus_message_read_basic(message, 's', &text) > 0)
			bytes += strlen(text) + 1;
	else if (type == 's' && sd_bus_message_read_basic(message, 's', &text) > 0)
		bytes = strlen(text);
	(void)sd_bus_message_rewind(message, 1);
	return bytes <= BUS_REQUEST_BYTES;
}

static int polkit_call(struct bus_pending *pending, const char *polkit_action, bool interactive)
{
	const char *sender = sd_bus_message_get_sender(pending->message);
	sd_bus_message *call = NULL;
	int r;

	r = sd_bus_message_new_method_call(pending->bus->connection, &call,
					   "org.freedesktop.PolicyKit1",
					   "/org/freedesktop/PolicyKit1/Authority",
					   "org.freedesktop.PolicyKit1.Authority",
					   "CheckAuthorization");
	if (r >= 0)
		r = sd_bus_message_append(call, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name",
					  "s", sender, polkit_action, 0,
					  interactive ? UINT32_C(1) : UINT32_C(0), "");
	if (r >= 0)
		r = sd_bus_call_async(pending->bus->connection, &pending->slot, call, on_answer,
				      pending, polkit_timeout_usec);
	(void)sd_bus_message_unref(call);
	return r;
}

int bus_authorise(struct bus *bus, sd_bus_message *message, const char *polkit_action,
		  bus_action action, sd_bus_error *error)
{
	struct bus_pending *pending;
	int64_t uid;

	/* His next call asks again. */
	if (!caller_look_up(bus, message))
		return refuse_unknown(bus, message, error);
	uid = bus_caller(bus, message)->uid;
	/* Root needs nobody's leave, and gets on without polkit. */
	if (bus->options.session || uid == 0)
		return decide_here(bus, message, action, error);
	if (!is_small(message))
		return bus_error_say(error, "InvalidArgument",
				     "The text is longer than anything that is taken here.");
	pending = pending_take(bus, uid);
	if (!pending)
		return bus_error_say(error, "Busy", "Too many calls wait for polkit; call again.");
	*pending = (struct bus_pending){
		.bus = bus, .message = sd_bus_message_ref(message), .action = action, .uid = uid
	};
	if (polkit_call(pending, polkit_action,
			sd_bus_message_get_allow_interactive_authorization(message) > 0) >= 0)
		return 1;
	pending_free(pending);
	return decide_here(bus, message, action, error);
}
