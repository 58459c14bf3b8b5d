/* Inside of sana-bench --self-test: its cases. */
#pragma once

#include "tools/bench/cuda_test.h"

/* Every op of the table at several shapes. */
void self_test_ops(struct cuda_test *test);

/* The ops that take most of a chunk, at the published shapes; a GPU is needed. */
void self_test_times(struct cuda_test *test);
