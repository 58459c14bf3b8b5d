/*
 * Who calls, in tables that no caller can make grow: the one that was quiet for longest makes room. Calls and
 * prompts are counted by connection, so that one that runs away holds up no other of the same user; prompts
 * also by user, ten times as many, so that new connections do not bring new ones for ever. A user who finds
 * no place among users that are all busy shares one bucket with the others of his kind.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { CALLERS = 256, CALLER_NAME_BYTES = 32, QUOTAS = 64, CALLERS_OF_USER = 10 };

struct bucket {
	double tokens;
	int64_t filled_ns;
};

struct caller {
	char name[CALLER_NAME_BYTES]; /* unique name, ":1.42"; "" : free */
	int64_t seen_ns;
	int64_t uid, pid; /* −1: not looked up (yet), or unknown */
	bool looked_up;
	struct bucket calls, prompts;
};

/* Of a user. */
struct quota {
	int64_t uid;	 /* −1: of those that are not known */
	int64_t seen_ns; /* 0: free */
	struct bucket prompts;
	int64_t refusal_ns; /* when one was noted down last … */
	uint64_t refusals;  /* … and how many came since */
};

struct callers {
	struct caller caller[CALLERS];
	struct quota quota[QUOTAS], others;
	uint64_t replaced, shared; /* counters */
};

/* The entry of a connection; a new one has a full bucket. */
struct caller *callers_find(struct callers *callers, const char *name, int64_t now_ns);

/* A user's buckets; new ones are full. */
struct quota *callers_quota(struct callers *callers, int64_t uid, int64_t now_ns);

/* Whether a refusal is to be noted down: one a minute and user. *ret_unsaid: how many came since the last. */
bool quota_refusal(struct quota *quota, int64_t now_ns, uint64_t *ret_unsaid);

/*
 * Takes one token of a bucket that holds at most `burst` and gains `per_second`. False: there is none. A
 * bucket of zeros is new, and full.
 */
bool bucket_take(struct bucket *bucket, double per_second, double burst, int64_t now_ns);
