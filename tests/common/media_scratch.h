/* The directory of each test that makes media files; libav says nothing meanwhile. */
#pragma once

#include "tests/common/scratch.h"

extern struct scratch media_scratch;

/* cmocka functions, of a test or a group. */
int media_scratch_setup(void **state);
int media_scratch_teardown(void **state);

/* A path in it that lives until the test ends; eight at a time. */
const char *media_scratch_path(const char *name);
