/* Log messages to the journal, with their fields. */
#include "daemon/main_journal.h"

#include "base/log.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

enum { FIELDS = 16, FIELD_BYTES = LOG_TEXT_BYTES + 64 };

struct message {
	struct iovec part[FIELDS];
	int parts;
	char text[FIELDS][FIELD_BYTES];
};

static void message_add(struct message *m, const char *name, const char *value)
{
	char *text;

	if (m->parts == FIELDS)
		return;
	text = m->text[m->parts];
	(void)snprintf(text, FIELD_BYTES, "%s=%s", name, value);
	m->part[m->parts++] = (struct iovec){ text, strlen(text) };
}

static void journal_write(void *context, enum log_level level, const struct log_field *fields,
			  const char *text)
{
	static const char identifier[] = "sana-streamd";
	struct message *m = context;
	char number[8];

	m->parts = 0;
	(void)snprintf(number, sizeof(number), "%d", (int)level);
	message_add(m, "MESSAGE", text);
	message_add(m, "PRIORITY", number);
	message_add(m, "SYSLOG_IDENTIFIER", identifier);
	for (; fields && fields->name; fields++)
		message_add(m, fields->name, fields->value ? fields->value : "");
	(void)sd_journal_sendv(m->part, m->parts);
}

/* systemd says which device and inode the stream to the journal is: it may have been redirected. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t device, inode;
	struct stat status;

	return stream && sscanf(stream, "%" SCNuMAX ":%" SCNuMAX, &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
	       status.st_ino == inode;
}

bool main_journal_use(void)
{
	/* The log sink's one buffer: it is called by one thread at a time. */
	static struct message message;

	if (!stderr_is_journal())
		return false;
	log_set_sink(journal_write, &message);
	return true;
}
