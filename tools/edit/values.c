/* sana-edit: times, rates and sizes as users write them. */
#include "tools/edit/edit.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

static const double LONGEST_SECONDS = 1e9;

/* Plain decimals only: strtod would also take "inf", "0x1p3" and signs. */
static int seconds_parse(const char *text, size_t length, double *ret)
{
	char copy[32];
	size_t digits = 0, points = 0;

	if (length == 0 || length >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	for (size_t i = 0; i < length; i++) {
		digits += isdigit((unsigned char)copy[i]) != 0;
		points += copy[i] == '.';
	}
	if (digits == 0 || points > 1 || digits + points != length)
		return -EINVAL;
	*ret = strtod(copy, NULL);
	return *ret <= LONGEST_SECONDS ? 0 : -ERANGE;
}

/* "1:02.5", "1:02:03.25": parts below 60 behind the first. */
static int clock_parse(const char *text, double *ret)
{
	double total = 0.0, part;
	const char *colon;
	int parts = 0;

	for (;;) {
		colon = strchr(text, ':');
		if (seconds_parse(text, colon ? (size_t)(colon - text) : strlen(text), &part) < 0 ||
		    ++parts > 3 || (parts > 1 && part >= 60.0) || (colon && part != floor(part)))
			return -EINVAL;
		total = 60.0 * total + part;
		if (!colon)
			break;
		text = colon + 1;
	}
	*ret = total;
	return total <= LONGEST_SECONDS ? 0 : -ERANGE;
}

static int frame_parse(const char *text, struct edit_time *ret)
{
	char *end;

	errno = 0;
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	*ret = (struct edit_time){ .frame = strtoll(text, &end, 10) };
	return errno || *end ? -EINVAL : 0;
}

int edit_time_parse(const char *text, struct edit_time *ret)
{
	const size_t length = strlen(text);
	double seconds, unit = 1.0;
	int r;

	if (text[0] == '#')
		return frame_parse(text + 1, ret);
	if (strchr(text, ':')) {
		r = clock_parse(text, &seconds);
	} else if (length > 2 && strcmp(text + length - 2, "ms") == 0) {
		unit = 1e-3;
		r = seconds_parse(text, length - 2, &seconds);
	} else {
		r = seconds_parse(text, length - (length > 1 && text[length - 1] == 's'), &seconds);
	}
	if (r < 0)
		return r;
	*ret = (struct edit_time){ .ns = llrint(seconds * unit * 1e9), .frame = -1 };
	return 0;
}

bool edit_time_is_reached(const struct edit_time *time, int64_t frame, int64_t timestamp_ns)
{
	return time->frame >= 0 ? frame >= time->frame : timestamp_ns >= time->ns;
}

static int integer_parse(const char *text, size_t length, int high, int *ret)
{
	int value = 0;

	if (length == 0 || length > 9)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (!isdigit((unsigned char)text[i]))
			return -EINVAL;
		value = 10 * value + (text[i] - '0');
	}
	if (value < 1 || value > high)
		return -ERANGE;
	*ret = value;
	return 0;
}

int edit_rate_parse(const char *text, struct edit_rate *ret)
{
	enum { MAX_RATE = 1000, MILLI = 1000, NTSC = 1001, MAX_PART = 10000000 };
	const char *slash = strchr(text, '/');
	struct edit_rate rate;
	double value;
	int whole;

	if (slash) {
		if (integer_parse(text, (size_t)(slash - text), MAX_PART, &rate.num) < 0 ||
		    integer_parse(slash + 1, strlen(slash + 1), MAX_PART, &rate.den) < 0)
			return -EINVAL;
	} else {
		if (seconds_parse(text, strlen(text), &value) < 0)
			return -EINVAL;
		rate = (struct edit_rate){ (int)lrint(MIN_OF(value, MAX_RATE + 1.0) * MILLI),
					   MILLI };
		/* 23.976, 29.97, 59.94: a whole number over 1.001. */
		whole = (int)lrint(value * NTSC / MILLI);
		if (value != floor(value) && fabs(value * NTSC / MILLI - whole) < 1e-4 * whole)
			rate = (struct edit_rate){ whole * MILLI, NTSC };
	}
	if (rate.num < 1 || rate.num / rate.den > MAX_RATE ||
	    rate.den / MAX_OF(1, rate.num) > MAX_RATE)
		return -ERANGE;
	*ret = rate;
	return 0;
}
