/* The live stream: requests of its users. */
#include "daemon/stream_private.h"

#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { QUOTED_BYTES = 100 }; /* of a name that was not understood */

/* --------------------------------------------------------------------------------------- requests */

static int prompt_check(struct live_stream *s, const char *text, struct sana_error *error)
{
	if (strlen(text) >= PIPELINE_PROMPT_BYTES)
		return sana_error_set(error, -E2BIG, "prompt.too-long",
				      "The prompt has %zu bytes; at most %d are taken.",
				      strlen(text), PIPELINE_PROMPT_BYTES - 1);
	if (text[strspn(text, " \t\r\n")] == '\0')
		return sana_error_set(error, -EINVAL, "prompt.empty",
				      "The prompt is empty: say what is to change.");
	if (!utf8_is_text(text))
		return sana_error_set(error, -EINVAL, "prompt.not-utf8",
				      "The prompt is not UTF-8, or holds noncharacters.");
	return s->options.check_prompt ? s->options.check_prompt(s->options.context, text, error) :
					 0;
}

int live_stream_set_prompt(struct live_stream *s, const char *text, uint64_t *ret_ticket,
			   struct sana_error *error)
{
	int r;

	r = prompt_check(s, text, error);
	if (r < 0)
		return r;
	(void)snprintf(s->prompt, sizeof(s->prompt), "%s", text);
	s->prompt_ticket = pipeline_set_prompt(s->pipeline, text);
	if (ret_ticket)
		*ret_ticket = s->prompt_ticket;
	stream_say_property(s, "Prompt");
	return 0;
}

int live_stream_set_policy(struct live_stream *s, const char *name, struct sana_error *error)
{
	return stream_policy_check(s->backend, name, error);
}

/* Names go into log lines, the manager's status and over the bus. */
static int name_check(const char *identity, const char *what, const char *name,
		      struct sana_error *error)
{
	if (utf8_is_line(identity))
		return 0;
	return sana_error_set(error, -EINVAL, name,
			      "The %s's name holds control characters, or is not UTF-8: give "
			      "it a plain name.",
			      what);
}

static int source_check(const struct live_stream *s, const char *identity, struct sana_error *error)
{
	static const char *const kinds[] = { "v4l2:", "file:/", "pattern:" };

	if (strlen(identity) >= sizeof(s->source))
		return sana_error_set(error, -E2BIG, "request.too-long",
				      "The source's name has %zu bytes; at most %zu are taken.",
				      strlen(identity), sizeof(s->source) - 1);
	if (!*identity)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strncmp(identity, kinds[i], strlen(kinds[i])) == 0)
			return name_check(identity, "source", "source.identity", error);
	return sana_error_set(error, -EINVAL, "source.identity",
			      "\"%.*s\" names no source: use v4l2:by-id/NAME, v4l2:by-path/NAME, "
			      "v4l2:card=NAME, file:/PATH or pattern:.",
			      utf8_cut(identity, QUOTED_BYTES), identity);
}

int live_stream_set_source(struct live_stream *s, const char *identity, struct sana_error *error)
{
	const int r = source_check(s, identity, error);

	if (r < 0)
		return r;
	(void)snprintf(s->source, sizeof(s->source), "%s", identity);
	log_info("The source is %s.", *identity ? identity : "none");
	s->running = false;
	pipeline_set_source(s->pipeline, identity);
	stream_say_property(s, "Source");
	stream_update_state(s);
	return 0;
}

static int sink_check(const char *identity, struct sana_error *error)
{
	static const char *const kinds[] = { "loopback:", "kms:", "file:/" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strncmp(identity, kinds[i], strlen(kinds[i])) == 0)
			return name_check(identity, "sink", "sink.identity", error);
	return sana_error_set(error, -EINVAL, "sink.identity",
			      "\"%.*s\" names no sink: use loopback:label=NAME, loopback:, "
			      "kms:CONNECTOR, kms: or file:/PATH.mp4.",
			      utf8_cut(identity, QUOTED_BYTES), identity);
}

int live_stream_set_sinks(struct live_stream *s, const char *const *identities, int count,
			  struct sana_error *error)
{
	int r = 0;

	for (int i = 0; i < count && r == 0; i++)
		r = sink_check(identities[i], error);
	if (r == 0)
		r = pipeline_set_sinks(s->pipeline, identities, count, error);
	if (r < 0)
		return r;
	s->sinks = count;
	for (int i = 0; i < count; i++) {
		(void)snprintf(s->sink[i], sizeof(s->sink[i]), "%s", identities[i]);
		s->sink_list[i] = s->sink[i];
	}
	stream_say_property(s, "Sinks");
	return 0;
}

int live_stream_start(struct live_stream *s, struct sana_error *error)
{
	if (s->stopping)
		return sana_error_set(error, -ESHUTDOWN, "stream.stopping",
				      "The daemon is on its way out.");
	if (s->started)
		return 0;
	s->started = true;
	s->running = false;
	pipeline_set_active(s->pipeline, true);
	stream_update_state(s);
	return 0;
}

int live_stream_stop(struct live_stream *s, struct sana_error *error)
{
	(void)error;
	s->started = s->paused = s->running = false;
	s->watched = true; /* a rest ends here, too, and nobody says so */
	pipeline_set_active(s->pipeline, false);
	pipeline_set_paused(s->pipeline, false);
	stream_update_state(s);
	return 0;
}

static int pause_set(struct live_stream *s, bool paused, struct sana_error *error)
{
	if (!s->started)
		return sana_error_set(error, -ESRCH, "stream.idle",
				      "The stream is stopped: start it first.");
	s->paused = paused;
	if (paused)
		s->running = false;
	pipeline_set_paused(s->pipeline, paused);
	stream_update_state(s);
	return 0;
}

int live_stream_pause(struct live_stream *s, struct sana_error *error)
{
	return pause_set(s, true, error);
}

int live_stream_resume(struct live_stream *s, struct sana_error *error)
{
	return pause_set(s, false, error);
}

int live_stream_reset(struct live_stream *s, struct sana_error *error)
{
	(void)error;
	pipeline_reset(s->pipeline);
	return 0;
}

int live_stream_snapshot(struct live_stream *s, int descriptor, uint64_t *ret_ticket,
			 struct sana_error *error)
{
	return pipeline_snapshot(s->pipeline, descriptor, ret_ticket, error);
}

/* ---------------------------------------------------------------------------------- configuration */

static void base_take(struct live_stream_base *base, const struct live_stream_config *config)
{
	(void)snprintf(base->source, sizeof(base->source), "%s", config->source);
	(void)snprintf(base->prompt, sizeof(base->prompt), "%s", config->prompt);
	(void)snprintf(base->policy, sizeof(base->policy), "%.63s",
		       config->policy ? config->policy : "");
	base->sinks = config->sink_count;
	for (int i = 0; i < config->sink_count; i++)
		(void)snprintf(base->sink[i], sizeof(base->sink[i]), "%s", config->sinks[i]);
}

/* What differs from `old`; what a client has set since stays where the file still says the same. */
static int base_apply(struct live_stream *s, const struct live_stream_config *config,
		      const struct live_stream_base *old, struct sana_error *error)
{
	struct live_stream_base now = { 0 };
	int r = 0;

	base_take(&now, config);
	/* At the start the back end is not known yet: then it is looked at when the model is open. */
	if (old && now.policy[0] && strcmp(old->policy, now.policy) != 0)
		r = live_stream_set_policy(s, now.policy, error);
	if (r == 0 && (!old || strcmp(old->source, now.source) != 0))
		r = live_stream_set_source(s, now.source, error);
	if (r == 0 &&
	    (!old || old->sinks != now.sinks || memcmp(old->sink, now.sink, sizeof(now.sink)) != 0))
		r = live_stream_set_sinks(s, config->sinks, config->sink_count, error);
	if (r == 0 && now.prompt[0] && (!old || strcmp(old->prompt, now.prompt) != 0))
		r = live_stream_set_prompt(s, now.prompt, NULL, error);
	if (r == 0)
		s->base = now;
	return r;
}

/* All that base_apply may find wrong, before it changes anything. */
static int base_check(struct live_stream *s, const struct live_stream_config *config,
		      const struct live_stream_base *old, struct sana_error *error)
{
	struct live_stream_base now = { 0 };
	int r = 0;

	base_take(&now, config);
	if (now.policy[0] && strcmp(old->policy, now.policy) != 0)
		r = stream_policy_check(s->backend, now.policy, error);
	if (r == 0)
		r = source_check(s, config->source, error);
	for (int i = 0; i < config->sink_count && r == 0; i++)
		r = sink_check(config->sinks[i], error);
	if (r == 0)
		r = pipeline_check_sinks(s->pipeline, config->sinks, config->sink_count, error);
	return r;
}

int live_stream_reload(struct live_stream *s, struct sana_error *error)
{
	struct live_stream_config config = { 0 };
	struct live_stream_base old = s->base;
	int r;

	if (!s->options.reload)
		return sana_error_set(error, -ENOTSUP, "reload.unsupported",
				      "There is no configuration file to read again.");
	r = s->options.reload(s->options.context, &config, error);
	if (r < 0)
		return r;
	r = base_check(s, &config, &old, error);
	if (s->options.reload_end)
		s->options.reload_end(s->options.context, r == 0);
	if (r == 0)
		r = base_apply(s, &config, &old, error);
	if (r < 0)
		return r;
	pipeline_set_settings(s->pipeline, &config.pipeline.settings);
	log_info("The configuration was read again.");
	return 0;
}

/* --------------------------------------------------------------------------------------- creation */

static int poll_add(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int descriptors_open(struct live_stream *s)
{
	int r;

	s->own_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->own_fd < 0 || s->fd < 0)
		return -errno;
	r = poll_add(s->fd, s->own_fd);
	return r < 0 ? r : poll_add(s->fd, pipeline_event_fd(s->pipeline));
}

int live_stream_create(const struct live_stream_options *options, struct live_stream **ret,
		       struct sana_error *error)
{
	struct live_stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	s->options = *options;
	s->state = LIVE_STATE_INVALID;
	s->watched = true;
	s->fd = s->own_fd = -1;
	s->started = options->config.autostart;
	r = pipeline_create(&options->config.pipeline, &s->pipeline, error);
	if (r == 0) {
		r = descriptors_open(s);
		if (r < 0)
			(void)sana_error_set(error, r, "memory", "No descriptors: %s.",
					     strerror(-r));
	}
	if (r == 0)
		r = base_apply(s, &options->config, NULL, error);
	/* While the model is loaded there is something to see: the source, or a card. */
	if (r == 0)
		pipeline_set_active(s->pipeline, s->started);
	if (r < 0) {
		(void)live_stream_destroy(s);
		return r;
	}
	stream_update_state(s);
	*ret = s;
	return 0;
}

struct live_stream *live_stream_destroy(struct live_stream *s)
{
	if (!s)
		return NULL;
	(void)pipeline_destroy(s->pipeline);
	if (s->fd >= 0)
		(void)close(s->fd);
	if (s->own_fd >= 0)
		(void)close(s->own_fd);
	free(s);
	return NULL;
}

void live_stream_devices_changed(struct live_stream *s)
{
	pipeline_retry(s->pipeline);
}

void live_stream_shut_down(struct live_stream *s)
{
	s->stopping = true;
	pipeline_set_active(s->pipeline, false);
	stream_update_state(s);
}
