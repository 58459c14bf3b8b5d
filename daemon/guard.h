/*
 * Safeguards at the door: which prompts are taken, and who asked for what.
 *
 * A prompt is compared with the deny list after both went through the same folding: compatibility forms
 * and case (NFKC_Casefold: full-width letters, ligatures, invisible characters), accents, look-alikes of
 * other scripts (the skeleton of Unicode TS 39), and everything that is no letter or digit becomes a
 * space. An entry matches whole words.
 *
 * The audit log has one JSON object a line: time, caller, method, decision, reason, ticket, digests of
 * model and policy, and the prompt as a digest keyed with a secret of this machine (HMAC-SHA-256), so that
 * equal prompts can be told without the log telling what they are; prompt texts only when asked for.
 *
 * The owner's thread alone comes here; never from the frame path.
 */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct guard;

struct guard_options {
	int prompt_max_bytes;
	const char *deny_list; /* path; "": none */
	const char *audit_log; /* path; "": none */
	const char *key_file;  /* path; "": the log's with ".key" behind it */
	int64_t audit_max_bytes;
	bool audit_text;
};

enum {
	GUARD_DENY_ENTRIES = 10000,
	GUARD_DENY_BYTES = 1 << 20, /* of the file */
};

/*
 * "guard.deny-list": the file cannot be read, is too large or not UTF-8; "guard.audit": log or key cannot
 * be opened or made: nothing is let in unseen, so the caller does not start.
 */
int guard_create(const struct guard_options *options, struct guard **ret, struct sana_error *error);
struct guard *guard_destroy(struct guard *guard); /* NULL accepted; returns NULL */

/* New limits and a new deny list; on failure the old ones stay. Log and key stay as they are. */
int guard_update(struct guard *guard, const struct guard_options *options,
		 struct sana_error *error);

/*
 * "prompt.empty", "prompt.too-long", "prompt.not-utf8", "prompt.control" (control characters but tab and
 * line ends), "prompt.denied" (the text names the line of the list, not the word).
 */
int guard_check_prompt(struct guard *guard, const char *text, struct sana_error *error);

struct guard_record {
	const char *method, *sender, *decision, *reason;
	int64_t uid, pid;	    /* −1: unknown */
	uint64_t ticket;	    /* 0: none */
	const char *prompt;	    /* NULL: the call has none */
	const char *argument;	    /* of other calls; "" */
	const char *model, *policy; /* what was in force: directory and name */
};

/* A failure to write is logged once and counted. */
void guard_audit(struct guard *guard, const struct guard_record *record);

struct guard_counters {
	uint64_t prompts_denied, prompts_refused, audit_lines, audit_failures;
};

void guard_counters_get(const struct guard *guard, struct guard_counters *ret);
