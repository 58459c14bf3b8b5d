/* Writes safetensors files for tests: right ones from tensors, wrong ones from any header text. */
#pragma once

#include <stdint.h>

#include "tests/common/scratch.h"

struct tensor_file; /* tensors in the order in which they were added */

struct tensor_file *tensor_file_create(void);
void tensor_file_destroy(struct tensor_file *file);

/* data NULL: zeros */
void tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, int rank,
		     const int64_t *shape, const void *data, size_t bytes);

void tensor_file_write(const struct tensor_file *file, const struct scratch *scratch,
		       const char *name);

/* N | header | data_bytes zeros, in memory to be freed. */
void *tensor_file_raw(const char *header, size_t header_bytes, size_t data_bytes,
		      size_t *ret_bytes);
