/* Inside of the live stream. The owner's thread alone comes here. */
#pragma once

#include "daemon/stream_options.h"

enum { LIVE_EVENTS = 64, LIVE_SINK_BYTES = PIPELINE_IDENTITY_BYTES };

struct live_stream {
	struct live_stream_options options;
	struct pipeline *pipeline;
	int fd;	    /* epoll: the pipeline's events, and own_fd */
	int own_fd; /* eventfd: events of our own wait */
	struct live_event event[LIVE_EVENTS];
	int first, count;
	uint64_t events_dropped;

	/* What was asked for. */
	bool started, paused, stopping;
	char source[PIPELINE_IDENTITY_BYTES];
	char sink[PIPELINE_SINKS][LIVE_SINK_BYTES];
	const char *sink_list[PIPELINE_SINKS];
	int sinks;
	char prompt[PIPELINE_PROMPT_BYTES], applied[PIPELINE_PROMPT_BYTES];
	uint64_t prompt_ticket;

	/* As the configuration said last: what differs after a reload is applied. */
	struct live_stream_base {
		char source[PIPELINE_IDENTITY_BYTES], prompt[PIPELINE_PROMPT_BYTES];
		char policy[64];
		char sink[PIPELINE_SINKS][LIVE_SINK_BYTES];
		int sinks;
	} base;

	/* What is so. */
	enum live_state state;
	bool model_open, warm, running, watched;
	char model[256], backend[32], loading[96];
	char fault[48]; /* the worst that is present */
	char fault_text[SANA_ERROR_TEXT_BYTES];
	int64_t described_ns; /* for rates */
	uint64_t described_shown;
	double rate; /* edited frames a second; 0: not measured yet */
};

/* Queues an event; bounded. */
void stream_say(struct live_stream *stream, const struct live_event *event);
void stream_say_property(struct live_stream *stream, const char *name);

/* Follows from all the flags; says it when it changed. */
void stream_update_state(struct live_stream *stream);

/* Takes all that the pipeline has to tell. */
void stream_drain(struct live_stream *stream);

/* The policy of a back end; "" for none. */
const char *stream_policy_of(const char *backend);
int stream_policy_check(const char *backend, const char *name, struct sana_error *error);
