/* The table of keys, and what may be in them. */
#include "conf/settings.h"

#include "base/util.h"

#define AT(member) offsetof(struct settings, member)

static const char *const backends[] = { "auto", "cpu", "cuda", NULL };
static const char *const switches[] = { "model", "keep", "recache", "restart", NULL };
static const char *const matrices[] = { "auto", "601", "709", "2020", "240m", NULL };
static const char *const ranges[] = { "auto", "limited", "full", NULL };
static const char *const shows[] = { "pass-through", "slate", "last-frame", NULL };
static const char *const levels[] = { "error", "warning", "notice", "info", "debug", NULL };
static const char *const source_formats[] = { "auto",  "YUYV",	"UYVY",	 "NV12", "YU12",
					      "RGB24", "BGR24", "MJPEG", NULL };
static const char *const sink_formats[] = { "auto", "YUYV", "NV12", "YU12", NULL };
static const char *const codecs[] = { "auto", "h264", "mpeg4", "vp9", "ffv1", NULL };

static bool begins(const char *value, const char *prefix, bool more)
{
	const size_t length = strlen(prefix);

	return strncmp(value, prefix, length) == 0 && (!more || value[length]);
}

static bool source_valid(const char *value)
{
	return !*value || begins(value, "v4l2:by-id/", true) ||
	       begins(value, "v4l2:by-path/", true) || begins(value, "v4l2:card=", true) ||
	       begins(value, "file:/", true) || strcmp(value, "pattern:") == 0;
}

static bool sink_valid(const char *value)
{
	return strcmp(value, "loopback:") == 0 || begins(value, "loopback:label=", true) ||
	       begins(value, "kms:", false) || begins(value, "file:/", true);
}

static bool path_valid(const char *value)
{
	return !*value || *value == '/';
}

static bool mode_valid(const char *value)
{
	int width, height, rate, used = 0;

	if (!*value)
		return true;
	if (sscanf(value, "%5dx%5d%n@%3d%n", &width, &height, &used, &rate, &used) < 2)
		return false;
	return width > 0 && height > 0 && !value[used];
}

static const char source_expected[] =
	"v4l2:by-id/NAME, v4l2:by-path/NAME, v4l2:card=NAME, file:/PATH, pattern: or an empty text";
static const char sink_expected[] =
	"loopback:, loopback:label=NAME, kms:, kms:CONNECTOR or file:/PATH.EXT";
static const char path_expected[] = "a path that begins with / or an empty text";
static const char mode_expected[] = "WIDTHxHEIGHT or WIDTHxHEIGHT@RATE or an empty text";

enum { LONG_TEXT = 4095, SHORT_TEXT = 255 };

#define BOOL(path_, member, fallback_, live_)                                          \
	{                                                                              \
		.path = path_, .type = SETTINGS_BOOL, .offset = AT(member), .high = 1, \
		.fallback = fallback_, .live = live_                                   \
	}
#define INT(path_, member, low_, high_, fallback_, live_)                               \
	{                                                                               \
		.path = path_, .type = SETTINGS_INT, .offset = AT(member), .low = low_, \
		.high = high_, .fallback = fallback_, .live = live_                     \
	}
#define INT64(path_, member, low_, high_, fallback_, live_)                               \
	{                                                                                 \
		.path = path_, .type = SETTINGS_INT64, .offset = AT(member), .low = low_, \
		.high = high_, .fallback = fallback_, .live = live_                       \
	}
#define NAME(path_, member, names_, fallback_, live_)                                        \
	{                                                                                    \
		.path = path_, .type = SETTINGS_NAME, .offset = AT(member), .names = names_, \
		.fallback_text = fallback_, .live = live_                                    \
	}
#define TEXT(path_, member, most_, fallback_, check_, expected_, live_)                           \
	{                                                                                         \
		.path = path_, .type = SETTINGS_TEXT, .offset = AT(member), .high = most_,        \
		.fallback_text = fallback_, .check = check_, .expected = expected_, .live = live_ \
	}

const struct settings_key settings_keys[] = {
	BOOL("autostart", autostart, true, false),

	TEXT("model.directory", model.directory, LONG_TEXT, "", path_valid, path_expected, false),
	NAME("model.backend", model.backend, backends, "auto", false),
	BOOL("model.deterministic", model.deterministic, false, false),
	TEXT("model.policy", model.policy, SHORT_TEXT, "", NULL, NULL, true),
	NAME("model.prompt-switch", model.prompt_switch, switches, "model", false),
	INT("model.threads", model.threads, 0, 256, 0, false),
	INT("model.width", model.width, 0, 8192, 0, false),
	INT("model.height", model.height, 0, 8192, 0, false),
	INT("model.first-chunk-latents", model.first_chunk_latents, 0, 16, 0, false),
	INT64("model.seed", model.seed, 0, INT64_MAX, 0, false),

	TEXT("source.identity", source.identity, SHORT_TEXT, "", source_valid, source_expected,
	     true),
	INT("source.width", source.width, 0, 16384, 0, false),
	INT("source.height", source.height, 0, 16384, 0, false),
	INT("source.fps", source.fps, 0, 240, 0, false),
	NAME("source.pixel-format", source.pixel_format, source_formats, "auto", false),
	NAME("source.matrix", source.matrix, matrices, "auto", false),
	NAME("source.range", source.range, ranges, "auto", false),

	{ .path = "output.sinks",
	  .type = SETTINGS_TEXTS,
	  .offset = AT(output.sinks),
	  .high = SHORT_TEXT,
	  .fallback_text = "loopback:",
	  .check = sink_valid,
	  .expected = sink_expected,
	  .live = true },
	INT("output.fps", output.fps, 1, 240, 24, false),
	NAME("output.codec", output.codec, codecs, "auto", false),
	NAME("output.pixel-format", output.pixel_format, sink_formats, "auto", false),
	TEXT("output.mode", output.mode, SHORT_TEXT, "", mode_valid, mode_expected, false),
	BOOL("output.unscaled", output.unscaled, false, false),
	NAME("output.while-warming", output.while_warming, shows, "pass-through", true),
	NAME("output.while-lost", output.while_lost, shows, "slate", true),
	NAME("output.while-paused", output.while_paused, shows, "last-frame", true),
	INT("output.hold-ms", output.hold_ms, 100, 10000, 1000, true),
	INT("output.latency-cap-ms", output.latency_cap_ms, 100, 60000, 5000, true),
	BOOL("output.sleep-unwatched", output.sleep_unwatched, false, true),
	INT("output.unwatched-ms", output.unwatched_ms, 0, 3600000, 5000, true),
	INT("output.backoff-min-ms", output.backoff_min_ms, 10, 60000, 100, true),
	INT("output.backoff-max-ms", output.backoff_max_ms, 10, 600000, 1000, true),

	TEXT("prompt.initial", prompt.initial, LONG_TEXT, "", NULL, NULL, true),
	INT("prompt.max-bytes", prompt.max_bytes, 1, 4095, 2048, true),
	TEXT("prompt.deny-list", prompt.deny_list, LONG_TEXT, "", path_valid, path_expected, true),

	TEXT("audit.log", audit.log, LONG_TEXT, "", path_valid, path_expected, false),
	TEXT("audit.key-file", audit.key_file, LONG_TEXT, "", path_valid, path_expected, false),
	INT("audit.max-kib", audit.max_kibibytes, 16, 1048576, 1024, false),
	BOOL("audit.text", audit.text, false, false),

	TEXT("bus.group", bus.group, SHORT_TEXT, "sana-streamd", NULL, NULL, true),
	INT("bus.calls-per-second", bus.calls_per_second, 1, 100000, 50, true),
	INT("bus.call-burst", bus.call_burst, 1, 100000, 100, true),
	INT("bus.prompts-per-minute", bus.prompts_per_minute, 1, 60000, 60, true),
	INT("bus.prompt-burst", bus.prompt_burst, 1, 1000, 10, true),

	NAME("log.level", log.level, levels, "info", true),
	{ 0 },
};

void settings_key_expected(const struct settings_key *key, char *ret, size_t bytes)
{
	size_t used = 0;

	switch (key->type) {
	case SETTINGS_BOOL:
		(void)snprintf(ret, bytes, "true or false");
		return;
	case SETTINGS_INT:
	case SETTINGS_INT64:
		(void)snprintf(ret, bytes, "a whole number from %lld to %lld", (long long)key->low,
			       (long long)key->high);
		return;
	case SETTINGS_NAME:
		for (size_t i = 0; key->names[i] && used < bytes; i++)
			used += (size_t)snprintf(ret + used, bytes - used, "%s\"%s\"",
						 i ? ", " : "one of ", key->names[i]);
		return;
	case SETTINGS_TEXT:
		(void)snprintf(ret, bytes, "%s (at most %lld bytes)",
			       key->expected ? key->expected : "a text", (long long)key->high);
		return;
	case SETTINGS_TEXTS:
		(void)snprintf(ret, bytes, "a list of at most %d of: %s", SETTINGS_SINKS,
			       key->expected);
		return;
	case SETTINGS_TYPE_COUNT:
		break;
	}
	(void)snprintf(ret, bytes, "?");
}
