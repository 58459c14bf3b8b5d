/* Words of a command line as numbers. */
#pragma once

/* A whole decimal number from low to high and nothing behind it; −EINVAL otherwise. */
int argument_integer(const char *text, long low, long high, int *ret);
