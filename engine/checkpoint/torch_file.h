/*
 * A checkpoint as torch.save writes it (.pth, .pt): a zip file with a pickle and the bytes of each
 * storage (docs/model/checkpoint.md §1 to §3). Nothing of it is executed; only the tensors of its
 * state dict come out, with the place of their bytes in the file.
 *
 * Errors are called "checkpoint.zip", "checkpoint.pickle" or "checkpoint.torch".
 */
#pragma once

#include "engine/checkpoint/bytes.h"
#include "engine/checkpoint/safetensors.h"

struct torch_tensor {
	const char *name; /* after the prefixes are gone; unique; lives as long as the file */
	enum safetensors_dtype dtype;
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	int64_t stride[SAFETENSORS_MAX_RANK]; /* elements */
	bool contiguous;		      /* the bytes at `offset` are the tensor as it is */
	uint64_t offset;		      /* of its first element in the file */
	uint64_t bytes;			      /* as a contiguous tensor */
	uint64_t span_bytes;		      /* from its first element to behind its last one */
};

struct torch_file;

/* `source` must stay open while the file is. */
int torch_file_open(const struct byte_source *source, struct torch_file **ret,
		    struct sana_error *error);
void torch_file_close(struct torch_file *file); /* NULL accepted */

static inline void torch_file_closep(struct torch_file **file)
{
	torch_file_close(*file);
}

size_t torch_file_count(const struct torch_file *file);
/* In the order of their bytes in the file. */
const struct torch_tensor *torch_file_at(const struct torch_file *file, size_t index);

/* Where the state dict was found: "" for the top, "state_dict", "generator", "generator.state_dict". */
const char *torch_file_nesting(const struct torch_file *file);
/* Entries of the state dict that are no tensors; such are left out. */
size_t torch_file_others(const struct torch_file *file);

/*
 * Compares the CRC-32 of every entry with the zip directory's; 0 counts as not written. Reads the
 * whole file, the one it was opened from, through the caller's buffer.
 */
int torch_file_check_crc(const struct byte_source *source, const struct torch_file *file,
			 void *buffer, size_t buffer_bytes, struct sana_error *error);

/*
 * Elements [first, first + count) of a tensor in row-major order, taken together from its span
 * (span_bytes from `offset` on). For tensors that are not contiguous: transposed views, channels-last
 * kernels.
 */
void torch_tensor_gather(const struct torch_tensor *tensor, const void *span, uint64_t first,
			 size_t count, void *to);
