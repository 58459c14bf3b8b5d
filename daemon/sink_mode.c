/* Sizes and rates as users write them. */
#include "daemon/sink_mode.h"

#include "media/picture.h"

#include <stdlib.h>

/* Digits only: strtol would take blanks and signs. */
static bool number(const char **text, int *ret)
{
	const char *p = *text;
	int value = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		value = 10 * value + (*p - '0');
		if (value > MEDIA_MAX_SIDE)
			return false;
	}
	if (p == *text || value == 0)
		return false;
	*text = p;
	*ret = value;
	return true;
}

bool sink_mode_parse(const char *text, int *ret_width, int *ret_height, double *ret_hz)
{
	const char *p = text;
	int width, height, whole, digits = 0;
	double hz = 0.0, unit = 1.0;

	if (!number(&p, &width) || *p++ != 'x' || !number(&p, &height))
		return false;
	if (*p == '@') {
		p++;
		if (!number(&p, &whole))
			return false;
		hz = whole;
		if (*p == '.')
			for (p++; *p >= '0' && *p <= '9' && digits < 6; p++, digits++)
				hz += (*p - '0') * (unit /= 10.0);
	}
	if (*p)
		return false;
	*ret_width = width;
	*ret_height = height;
	*ret_hz = hz;
	return true;
}
