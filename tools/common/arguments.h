/* Words of a command line as numbers. */
#pragma once

/* A whole decimal number from low to high and nothing behind it; −EINVAL otherwise. */
int argument_integer(const char *text, long low, long high, int *ret);

/* WIDTHxHEIGHT: two whole decimal numbers from 1 to `most`, nothing around them; −EINVAL otherwise. */
int argument_size(const char *text, int most, int *ret_width, int *ret_height);
