/*
 * Token buckets of the bus's callers, in a table that no caller can make grow: the one that was quiet for
 * longest makes room. Whoever finds no place among callers that are all busy shares one bucket with the
 * others of his kind.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { CALLERS = 64, CALLER_NAME_BYTES = 32 };

struct bucket {
	double tokens;
	int64_t filled_ns;
};

struct caller {
	char name[CALLER_NAME_BYTES]; /* unique name, ":1.42"; "" : free */
	int64_t seen_ns;
	int64_t uid, pid; /* −1: not looked up, or unknown */
	bool looked_up;
	struct bucket calls, prompts;
};

struct callers {
	struct caller caller[CALLERS], others;
	uint64_t replaced, shared; /* counters */
};

/* The entry of a caller; a new one starts with full buckets. */
struct caller *callers_find(struct callers *callers, const char *name, int64_t now_ns);

/*
 * Takes one token of a bucket that holds at most `burst` and gains `per_second`. False: there is none. A
 * bucket of zeros is new, and full.
 */
bool bucket_take(struct bucket *bucket, double per_second, double burst, int64_t now_ns);
