/* Reading and checking the files against the table of keys. */
#include "conf/settings.h"

#include "base/utf8.h"
#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <libconfig.h>
#include <stdarg.h>
#include <unistd.h>

enum {
	PATH_BYTES = 4096,
	DROP_INS = 64,
	TEXT_BYTES = 1024,
	SUGGEST_DISTANCE = 3,
	KEY_BYTES = 128,
	QUOTED_BYTES = 60
};

/* Every string of the settings, in one list. */
struct owned {
	struct owned *next;
	char text[];
};

struct reading {
	struct settings *settings;
	struct settings_report *report;
	const char *file; /* now being read */
};

/* ------------------------------------------------------------------------------------- the report */

void settings_report_finish(struct settings_report *report)
{
	for (int i = 0; i < report->kept; i++)
		free(report->text[i]);
	*report = (struct settings_report){ 0 };
}

static void _printf_(4, 5)
	mistake(struct reading *r, int line, const char *key, const char *format, ...)
{
	struct settings_report *report = r->report;
	char what[TEXT_BYTES];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	report->mistakes++;
	if (report->kept == SETTINGS_MISTAKES)
		return;
	if (asprintf(&report->text[report->kept], "%s:%d:%s%s%s", r->file, line, key ? key : "",
		     key ? ": " : " ", what) >= 0)
		utf8_make_line(report->text[report->kept++]);
}

/* -------------------------------------------------------------------------------------- strings */

/* A copy that lives with the settings; "" when memory is out. */
static const char *keep(struct settings *settings, const char *text)
{
	const size_t bytes = strlen(text) + 1;
	struct owned *owned = malloc(sizeof(*owned) + bytes);

	if (!owned)
		return "";
	memcpy(owned->text, text, bytes);
	owned->next = settings->owner;
	settings->owner = owned;
	return owned->text;
}

struct settings *settings_free(struct settings *settings)
{
	struct owned *next;

	if (!settings)
		return NULL;
	for (struct owned *owned = settings->owner; owned; owned = next) {
		next = owned->next;
		free(owned);
	}
	free(settings);
	return NULL;
}

/* --------------------------------------------------------------------------------------- values */

static void *field(struct settings *settings, const struct settings_key *key)
{
	return (char *)settings + key->offset;
}

static void number_store(struct settings *settings, const struct settings_key *key, int64_t value)
{
	void *to = field(settings, key);

	if (key->type == SETTINGS_BOOL)
		*(bool *)to = value != 0;
	else if (key->type == SETTINGS_INT)
		*(int *)to = (int)value;
	else
		*(int64_t *)to = value;
}

static void defaults_fill(struct settings *settings)
{
	for (const struct settings_key *key = settings_keys; key->path; key++)
		switch (key->type) {
		case SETTINGS_BOOL:
		case SETTINGS_INT:
		case SETTINGS_INT64:
			number_store(settings, key, key->fallback);
			break;
		case SETTINGS_TEXT:
		case SETTINGS_NAME:
			*(const char **)field(settings, key) = key->fallback_text;
			break;
		case SETTINGS_TEXTS: {
			struct settings_list *list = field(settings, key);

			list->count = key->fallback_text != NULL;
			list->item[0] = key->fallback_text;
			break;
		}
		case SETTINGS_TYPE_COUNT:
			break;
		}
}

static void refuse(struct reading *r, const config_setting_t *setting,
		   const struct settings_key *key, const char *got)
{
	char expected[TEXT_BYTES / 2];

	settings_key_expected(key, expected, sizeof(expected));
	mistake(r, config_setting_source_line(setting), key->path, "expected %s, not %s", expected,
		got);
}

/* What a setting holds, for a message: short. */
static void describe(const config_setting_t *setting, char *ret, size_t bytes)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		(void)snprintf(ret, bytes, "%lld", config_setting_get_int64(setting));
		return;
	case CONFIG_TYPE_FLOAT:
		(void)snprintf(ret, bytes, "%g", config_setting_get_float(setting));
		return;
	case CONFIG_TYPE_STRING: {
		const char *text = config_setting_get_string(setting);

		(void)snprintf(ret, bytes, "\"%.*s%s\"", utf8_cut(text, QUOTED_BYTES), text,
			       strlen(text) > QUOTED_BYTES ? "…" : "");
		return;
	}
	case CONFIG_TYPE_BOOL:
		(void)snprintf(ret, bytes, "%s",
			       config_setting_get_bool(setting) ? "true" : "false");
		return;
	case CONFIG_TYPE_GROUP:
		(void)snprintf(ret, bytes, "a group { … }");
		return;
	default:
		(void)snprintf(ret, bytes, "a list");
		return;
	}
}

static bool is_number(const config_setting_t *setting)
{
	return config_setting_type(setting) == CONFIG_TYPE_INT ||
	       config_setting_type(setting) == CONFIG_TYPE_INT64;
}

/* The text of a setting, or NULL and a mistake. All of them may be shown, names also in one line. */
static const char *text_get(struct reading *r, const config_setting_t *setting,
			    const struct settings_key *key)
{
	const char *text = config_setting_type(setting) == CONFIG_TYPE_STRING ?
				   config_setting_get_string(setting) :
				   NULL;
	char got[160];

	describe(setting, got, sizeof(got));
	if (!text || strlen(text) > (size_t)key->high || (key->check && !key->check(text)))
		refuse(r, setting, key, got);
	else if (!(key->check ? utf8_is_line(text) : utf8_is_text(text)))
		mistake(r, config_setting_source_line(setting), key->path,
			"expected UTF-8%s, not %s", key->check ? " without control characters" : "",
			got);
	else
		return text;
	return NULL;
}

static const char *name_find(const struct settings_key *key, const char *text)
{
	for (size_t i = 0; key->names[i]; i++)
		if (strcmp(key->names[i], text) == 0)
			return key->names[i];
	return NULL;
}

static void list_take(struct reading *r, const config_setting_t *setting,
		      const struct settings_key *key)
{
	struct settings_list list = { 0 };
	const int count = config_setting_length(setting);
	char got[160];

	describe(setting, got, sizeof(got));
	if (!config_setting_is_list(setting) && !config_setting_is_array(setting)) {
		refuse(r, setting, key, got);
		return;
	}
	if (count > SETTINGS_SINKS) {
		(void)snprintf(got, sizeof(got), "%d entries", count);
		refuse(r, setting, key, got);
		return;
	}
	for (int i = 0; i < count; i++) {
		const config_setting_t *item = config_setting_get_elem(setting, (unsigned int)i);
		const char *text = text_get(r, item, key);

		if (!text)
			return;
		list.item[list.count++] = keep(r->settings, text);
	}
	*(struct settings_list *)field(r->settings, key) = list;
}

static void value_take(struct reading *r, const config_setting_t *setting,
		       const struct settings_key *key)
{
	const int type = config_setting_type(setting);
	const char *text = type == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : NULL;
	int64_t number;
	char got[160];

	describe(setting, got, sizeof(got));
	switch (key->type) {
	case SETTINGS_BOOL:
		if (type == CONFIG_TYPE_BOOL)
			number_store(r->settings, key, config_setting_get_bool(setting));
		else
			refuse(r, setting, key, got);
		return;
	case SETTINGS_INT:
	case SETTINGS_INT64:
		number = is_number(setting) ? config_setting_get_int64(setting) : 0;
		if (is_number(setting) && number >= key->low && number <= key->high)
			number_store(r->settings, key, number);
		else
			refuse(r, setting, key, got);
		return;
	case SETTINGS_NAME:
		text = text ? name_find(key, text) : NULL;
		if (text)
			*(const char **)field(r->settings, key) = text;
		else
			refuse(r, setting, key, got);
		return;
	case SETTINGS_TEXT:
		text = text_get(r, setting, key);
		if (text)
			*(const char **)field(r->settings, key) = keep(r->settings, text);
		return;
	case SETTINGS_TEXTS:
		list_take(r, setting, key);
		return;
	case SETTINGS_TYPE_COUNT:
		return;
	}
}

/* ----------------------------------------------------------------------------------- unknown keys */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Levenshtein's; texts of KEY_BYTES or more are as far as can be. */
static size_t distance(const char *a, const char *b)
{
	const size_t n = strlen(a), m = strlen(b);
	size_t row[KEY_BYTES];

	if (n >= KEY_BYTES || m >= KEY_BYTES)
		return KEY_BYTES;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			const size_t above = row[j];

			row[j] = least(least(above, row[j - 1]) + 1,
				       diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[m];
}

static void unknown(struct reading *r, const config_setting_t *setting, const char *path)
{
	const char *nearest = NULL;
	size_t best = SUGGEST_DISTANCE + 1;

	for (const struct settings_key *key = settings_keys; key->path; key++) {
		const size_t d = distance(path, key->path);

		if (d < best) {
			best = d;
			nearest = key->path;
		}
	}
	if (nearest)
		mistake(r, config_setting_source_line(setting), path,
			"there is no such key; did you mean \"%s\"?", nearest);
	else
		mistake(r, config_setting_source_line(setting), path,
			"there is no such key; sana-streamd.conf(5) lists all");
}

static const struct settings_key *key_find(const char *path)
{
	for (const struct settings_key *key = settings_keys; key->path; key++)
		if (strcmp(key->path, path) == 0)
			return key;
	return NULL;
}

/* Some key is inside the group of that name. */
static bool is_group(const char *path)
{
	const size_t length = strlen(path);

	for (const struct settings_key *key = settings_keys; key->path; key++)
		if (strncmp(key->path, path, length) == 0 && key->path[length] == '.')
			return true;
	return false;
}

/* Groups are one deep; whatever else is in the file is a mistake. */
static void group_take(struct reading *r, const config_setting_t *group, const char *prefix)
{
	const int count = config_setting_length(group);

	for (int i = 0; i < count; i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned int)i);
		const struct settings_key *key;
		char path[2 * KEY_BYTES];

		(void)snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "",
			       config_setting_name(setting));
		key = key_find(path);
		if (key)
			value_take(r, setting, key);
		else if (!*prefix && is_group(path) && config_setting_is_group(setting))
			group_take(r, setting, path);
		else if (!*prefix && is_group(path))
			mistake(r, config_setting_source_line(setting), path,
				"expected a group: %s = { … };", path);
		else
			unknown(r, setting, path);
	}
}

/* ---------------------------------------------------------------------------------------- files */

static void file_take(struct reading *r, const char *path)
{
	config_t config;

	r->file = path;
	config_init(&config);
	if (access(path, R_OK) != 0)
		mistake(r, 0, NULL, "cannot be read: %s", strerror(errno));
	else if (config_read_file(&config, path) == CONFIG_TRUE)
		group_take(r, config_root_setting(&config), "");
	else if (config_error_type(&config) == CONFIG_ERR_PARSE)
		mistake(r, config_error_line(&config), NULL, "%s", config_error_text(&config));
	else
		mistake(r, 0, NULL, "cannot be read");
	config_destroy(&config);
}

static int is_drop_in(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && dot && strcmp(dot, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void drop_ins_take(struct reading *r, const char *path)
{
	char directory[PATH_BYTES], file[2 * PATH_BYTES];
	struct dirent **entries = NULL;
	int count;

	(void)snprintf(directory, sizeof(directory), "%s.d", path);
	count = scandir(directory, &entries, is_drop_in, by_bytes);
	if (count < 0 && errno != ENOENT) {
		r->file = directory;
		mistake(r, 0, NULL, "drop-ins cannot be read: %s", strerror(errno));
	}
	if (count > DROP_INS) {
		r->file = directory;
		mistake(r, 0, NULL, "%d files are more than the %d that are read", count, DROP_INS);
	}
	for (int i = 0; i < count; i++) {
		(void)snprintf(file, sizeof(file), "%s/%s", directory, entries[i]->d_name);
		if (i < DROP_INS)
			file_take(r, file);
		free(entries[i]);
	}
	free(entries);
}

/* What no single key can tell. */
static void whole_check(struct reading *r, const char *path)
{
	const struct settings *s = r->settings;

	r->file = path;
	if (!s->model.width != !s->model.height)
		mistake(r, 0, "model.width",
			"model.width and model.height are given together or not at all");
	if (!s->source.width != !s->source.height)
		mistake(r, 0, "source.width",
			"source.width and source.height are given together or not at all");
	if (s->output.backoff_min_ms > s->output.backoff_max_ms)
		mistake(r, 0, "output.backoff-min-ms", "%d is more than output.backoff-max-ms, %d",
			s->output.backoff_min_ms, s->output.backoff_max_ms);
	for (int i = 1; i < s->output.sinks.count; i++)
		for (int k = 0; k < i; k++)
			if (strcmp(s->output.sinks.item[i], s->output.sinks.item[k]) == 0)
				mistake(r, 0, "output.sinks", "%s is given twice",
					s->output.sinks.item[i]);
	if (strlen(s->prompt.initial) > (size_t)s->prompt.max_bytes)
		mistake(r, 0, "prompt.initial", "longer than prompt.max-bytes, %d",
			s->prompt.max_bytes);
}

int settings_load(const char *path, struct settings **ret, struct settings_report *report,
		  struct sana_error *error)
{
	struct settings *settings = calloc(1, sizeof(*settings));
	struct reading reading = { .settings = settings, .report = report };
	int r;

	if (!settings)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	settings_report_finish(report);
	defaults_fill(settings);
	if (path) {
		file_take(&reading, path);
		drop_ins_take(&reading, path);
		whole_check(&reading, path);
	}
	if (!report->mistakes) {
		*ret = settings;
		return 0;
	}
	r = sana_error_set(error, -EINVAL, "config.mistake", "%s%s",
			   report->kept ? report->text[0] : "The configuration is wrong",
			   report->mistakes > 1 ? " (and more: --check-config lists all)" : "");
	(void)settings_free(settings);
	return r;
}

/* ----------------------------------------------------------------------------------- comparison */

static bool lists_differ(const struct settings_list *a, const struct settings_list *b)
{
	if (a->count != b->count)
		return true;
	for (int i = 0; i < a->count; i++)
		if (strcmp(a->item[i], b->item[i]) != 0)
			return true;
	return false;
}

static bool key_differs(const struct settings_key *key, const void *a, const void *b)
{
	switch (key->type) {
	case SETTINGS_BOOL:
		return *(const bool *)a != *(const bool *)b;
	case SETTINGS_INT:
		return *(const int *)a != *(const int *)b;
	case SETTINGS_INT64:
		return *(const int64_t *)a != *(const int64_t *)b;
	case SETTINGS_TEXT:
	case SETTINGS_NAME:
		return strcmp(*(const char *const *)a, *(const char *const *)b) != 0;
	case SETTINGS_TEXTS:
		return lists_differ(a, b);
	case SETTINGS_TYPE_COUNT:
		break;
	}
	return false;
}

int settings_compare(const struct settings *old, const struct settings *now,
		     void (*differs)(void *context, const struct settings_key *key), void *context)
{
	int restart = 0;

	for (const struct settings_key *key = settings_keys; key->path; key++) {
		if (!key_differs(key, (const char *)old + key->offset,
				 (const char *)now + key->offset))
			continue;
		restart += !key->live;
		if (differs)
			differs(context, key);
	}
	return restart;
}
