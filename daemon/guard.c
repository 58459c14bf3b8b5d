/* Which prompts are taken, and who asked for what. */
#include "daemon/guard.h"

#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/guard_audit.h"
#include "daemon/guard_fold.h"

#include <errno.h>

struct entry {
	char *folded; /* " words " */
	int line;
};

struct deny_list {
	struct entry *entry;
	int entries;
};

struct guard {
	int prompt_max_bytes;
	struct guard_fold *fold;
	struct deny_list deny;
	struct guard_log *log; /* NULL: none */
	bool log_failed;
	struct guard_counters counters;
};

/* ------------------------------------------------------------------------------------- the list */

static void deny_finish(struct deny_list *list)
{
	for (int i = 0; i < list->entries; i++)
		free(list->entry[i].folded);
	free(list->entry);
	*list = (struct deny_list){ 0 };
}

/* "" and comments are no entries. */
static int line_take(struct guard_fold *fold, const char *path, const char *line, int number,
		     struct deny_list *list, struct sana_error *error)
{
	char *folded;

	line += strspn(line, " \t");
	if (!*line || *line == '#')
		return 0;
	if (list->entries == GUARD_DENY_ENTRIES)
		return sana_error_set(error, -E2BIG, "guard.deny-list", "%s: more than %d entries.",
				      path, GUARD_DENY_ENTRIES);
	folded = guard_fold_text(fold, line);
	if (!folded || strcmp(folded, " ") == 0) {
		free(folded);
		return sana_error_set(error, -EINVAL, "guard.deny-list",
				      "%s:%d: no letter or digit, or not UTF-8.", path, number);
	}
	list->entry[list->entries++] = (struct entry){ folded, number };
	return 0;
}

static int deny_load(struct guard_fold *fold, const char *path, struct deny_list *ret,
		     struct sana_error *error)
{
	_cleanup_(freep) char *text = NULL;
	struct deny_list list = { 0 };
	size_t bytes;
	int number = 0, r = 0;

	*ret = list;
	if (!*path)
		return 0;
	r = file_read(path, GUARD_DENY_BYTES, "guard.deny-list", &text, &bytes, error);
	if (r < 0)
		return r;
	if (strlen(text) != bytes)
		return sana_error_set(error, -EINVAL, "guard.deny-list", "%s: holds a NUL.", path);
	list.entry = calloc(GUARD_DENY_ENTRIES, sizeof(*list.entry));
	if (!list.entry)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	for (char *rest = text, *line; r >= 0 && (line = strsep(&rest, "\n"));) {
		line[strcspn(line, "\r")] = '\0';
		r = line_take(fold, path, line, ++number, &list, error);
	}
	if (r < 0)
		deny_finish(&list);
	else
		*ret = list;
	return r;
}

/* -------------------------------------------------------------------------------------- the guard */

int guard_create(const struct guard_options *options, struct guard **ret, struct sana_error *error)
{
	struct guard *guard = calloc(1, sizeof(*guard));
	int r;

	if (!guard)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	guard->prompt_max_bytes = options->prompt_max_bytes;
	r = guard_fold_create(&guard->fold, error);
	if (r >= 0)
		r = deny_load(guard->fold, options->deny_list, &guard->deny, error);
	if (r >= 0 && *options->audit_log)
		r = guard_log_open(options, &guard->log, error);
	if (r < 0) {
		(void)guard_destroy(guard);
		return r;
	}
	*ret = guard;
	return 0;
}

struct guard *guard_destroy(struct guard *guard)
{
	if (!guard)
		return NULL;
	deny_finish(&guard->deny);
	(void)guard_fold_destroy(guard->fold);
	(void)guard_log_close(guard->log);
	free(guard);
	return NULL;
}

int guard_update(struct guard *guard, const struct guard_options *options, struct sana_error *error)
{
	struct deny_list list;
	const int r = deny_load(guard->fold, options->deny_list, &list, error);

	if (r < 0)
		return r;
	deny_finish(&guard->deny);
	guard->deny = list;
	guard->prompt_max_bytes = options->prompt_max_bytes;
	return 0;
}

/* --------------------------------------------------------------------------------------- prompts */

static int refuse(struct guard *guard, struct sana_error *error, const char *name, const char *text)
{
	guard->counters.prompts_refused++;
	return sana_error_set(error, -EINVAL, name, "%s", text);
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if (((unsigned char)*text < ' ' && !strchr("\t\n\r", *text)) || *text == 0x7f)
			return true;
	return false;
}

static int deny_check(struct guard *guard, const char *folded, struct sana_error *error)
{
	for (int i = 0; i < guard->deny.entries; i++) {
		if (!strstr(folded, guard->deny.entry[i].folded))
			continue;
		guard->counters.prompts_denied++;
		return sana_error_set(error, -EACCES, "prompt.denied",
				      "This prompt is not taken here: line %d of the deny list.",
				      guard->deny.entry[i].line);
	}
	return 0;
}

int guard_check_prompt(struct guard *guard, const char *text, struct sana_error *error)
{
	_cleanup_(freep) char *folded = NULL;
	const size_t bytes = strlen(text);

	if (bytes > (size_t)guard->prompt_max_bytes) {
		guard->counters.prompts_refused++;
		return sana_error_set(error, -E2BIG, "prompt.too-long",
				      "The prompt has %zu bytes, %d are taken: shorten it.", bytes,
				      guard->prompt_max_bytes);
	}
	if (text[strspn(text, " \t\n\r")] == '\0')
		return refuse(guard, error, "prompt.empty",
			      "The prompt is empty: say what is to change.");
	if (has_control(text))
		return refuse(guard, error, "prompt.control",
			      "The prompt holds control characters.");
	folded = guard_fold_text(guard->fold, text);
	if (!folded)
		return refuse(guard, error, "prompt.not-utf8", "The prompt is not UTF-8.");
	return deny_check(guard, folded, error);
}

/* ----------------------------------------------------------------------------------------- audit */

void guard_audit(struct guard *guard, const struct guard_record *record)
{
	int r;

	if (!guard->log)
		return;
	r = guard_log_write(guard->log, record);
	guard->counters.audit_lines += r >= 0;
	guard->counters.audit_failures += r < 0;
	if (r < 0 && !guard->log_failed)
		log_error("The audit log cannot be written: %s, ignoring.", strerror(-r));
	guard->log_failed = r < 0;
}

void guard_counters_get(const struct guard *guard, struct guard_counters *ret)
{
	*ret = guard->counters;
}
