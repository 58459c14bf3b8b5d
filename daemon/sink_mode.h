/* Sizes and rates as users write them. */
#pragma once

#include <stdbool.h>

/* "1280x720" or "1280x720@59.94"; rate 0 where there is none. False for anything else. */
bool sink_mode_parse(const char *text, int *ret_width, int *ret_height, double *ret_hz);
