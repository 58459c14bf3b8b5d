/*
 * Tests of the CUDA back end as cmocka programs: what they share with `sana-bench --self-test` is
 * tools/bench/cuda_test.h (two sides, random values, comparisons) and tools/bench/op_check.h (one case of an
 * op). Here every problem is an assertion that failed.
 *
 * A program calls cuda_test_open in its group set-up; without a GPU it prints why and exits with 77.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tools/bench/cuda_test.h"

/* Opens both; exits with 77 where there is no GPU. */
void cuda_test_open(struct cuda_test *test);
/* The same without kernels for one generation of chips: what other chips run, tested here. */
void cuda_test_open_portable(struct cuda_test *test);
