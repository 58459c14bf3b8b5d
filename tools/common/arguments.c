/* Words of a command line as numbers. */
#include "tools/common/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

int argument_integer(const char *text, long low, long high, int *ret)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < low || value > high)
		return -EINVAL;
	*ret = (int)value;
	return 0;
}

/* Digits alone, unlike strtol's; *ret_end is behind them. */
static int side_parse(const char *text, int most, const char **ret_end, int *ret)
{
	int value = 0;

	for (; isdigit((unsigned char)*text); text++) {
		value = 10 * value + (*text - '0');
		if (value > most)
			return -EINVAL;
	}
	*ret_end = text;
	*ret = value;
	return value > 0 ? 0 : -EINVAL;
}

int argument_size(const char *text, int most, int *ret_width, int *ret_height)
{
	int width, height;

	if (side_parse(text, most, &text, &width) < 0 || *text != 'x' ||
	    side_parse(text + 1, most, &text, &height) < 0 || *text)
		return -EINVAL;
	*ret_width = width;
	*ret_height = height;
	return 0;
}
