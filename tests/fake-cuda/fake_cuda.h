/*
 * A libcuda.so.1 that computes nothing: memory is the host's, copies and fills are done, kernels only counted. It
 * refuses and fails where a test says so, and knows what was not given back. So everything the program does
 * around its kernels is tested without a GPU.
 *
 * A test loads $BUILD/tests/libcuda.so.1 before the program looks for a driver: the dynamic loader then takes it for
 * the one that is asked for by that name.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Numbers of cuda.h, for tests that are built without it. */
enum {
	FAKE_CUDA_OUT_OF_MEMORY = 2,
	FAKE_CUDA_DEVICE_UNAVAILABLE = 46,
	FAKE_CUDA_NO_DEVICE = 100,
	FAKE_CUDA_NO_BINARY_FOR_GPU = 209,
	FAKE_CUDA_ECC_UNCORRECTABLE = 214,
	FAKE_CUDA_ILLEGAL_ADDRESS = 700,
	FAKE_CUDA_LAUNCH_FAILED = 719,
	FAKE_CUDA_SYSTEM_DRIVER_MISMATCH = 803,
	FAKE_CUDA_UNKNOWN = 999,
};

/* Kinds of what a context owns. */
enum fake_cuda_kind {
	FAKE_CUDA_MEMORY,
	FAKE_CUDA_HOST_MEMORY,
	FAKE_CUDA_STREAM,
	FAKE_CUDA_EVENT,
	FAKE_CUDA_GRAPH,
	FAKE_CUDA_LIBRARY,
	FAKE_CUDA_KINDS,
};

/* All of it may be changed while no call is under way, `failing` and what belongs to it at any time. */
struct fake_cuda {
	int version;	     /* 13000 */
	int devices;	     /* 1 */
	int capability;	     /* 120 */
	uint64_t memory;     /* bytes of the device */
	const char *missing; /* a function this driver does not have; NULL: none */

	/*
	 * The call of `failing` (or, NULL, of any function) that comes after `spared` others gives `result`, and so
	 * again, `repeats` times more; `sticky`: so does every later call until the context is gone, as after a
	 * kernel that failed.
	 */
	const char *failing;
	int spared; /* −1: nothing fails */
	int repeats;
	int result;
	bool sticky;
	bool lasting; /* and openings after it, as with driver branch 580 */

	/* What happened. */
	uint64_t calls, launches, uploads;
	int contexts;		    /* retained and not released */
	int owned[FAKE_CUDA_KINDS]; /* by the context */
	int left_behind; /* that contexts still owned when they went, and could have been given back */
};

/* What a healthy driver is like, with nothing counted. Contexts must be gone. */
void fake_cuda_reset(struct fake_cuda *fake);
