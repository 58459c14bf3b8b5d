/* Words of a command line as numbers. */
#include "tools/common/arguments.h"

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
