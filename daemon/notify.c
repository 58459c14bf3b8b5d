/* What the service manager is told. */
#include "daemon/notify.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

enum { STATUS_BYTES = 256 };

void notify_ready(void)
{
	(void)sd_notify(0, "READY=1");
}

void notify_extend_start(int64_t ns)
{
	(void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%" PRId64, ns / 1000);
}

void notify_status(const char *line)
{
	char text[STATUS_BYTES];

	/* Each line of a datagram is a command. */
	(void)snprintf(text, sizeof(text), "%s", line);
	utf8_make_line(text);
	(void)sd_notifyf(0, "STATUS=%s", text);
}

void notify_reloading(void)
{
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_now_ns() / 1000);
}

void notify_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1\nSTATUS=stopping");
}

int64_t notify_watchdog_ns(void)
{
	uint64_t usec = 0;

	/* Half of the limit, as sd_watchdog_enabled(3) asks for. */
	return sd_watchdog_enabled(0, &usec) > 0 ? (int64_t)usec * 1000 / 2 : 0;
}

void notify_alive(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}
