/*
 * Writes checkpoints as torch.save does: a zip64 file with a protocol-2 pickle and the storages, each
 * aligned to 64 bytes by padding in the local header (docs/model/checkpoint.md §1, §2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct torch_writer;

/* Gives the next bytes of a storage. */
typedef void (*torch_fill)(void *context, int storage, uint64_t offset, void *to, size_t bytes);

struct torch_writer *torch_writer_create(void);
void torch_writer_destroy(struct torch_writer *writer);

/* `type` is torch's name before "Storage": "BFloat16". Returns its number. data NULL: see fill. */
int torch_writer_storage(struct torch_writer *writer, const char *type, size_t element_bytes,
			 uint64_t numel, const void *data);

/* A view of a storage; strides NULL: contiguous. Offset and strides count elements. */
void torch_writer_view(struct torch_writer *writer, const char *name, int storage, uint64_t offset,
		       int rank, const int64_t *shape, const int64_t *stride);

/* A storage and a tensor that fills it, by the dtype's name in safetensors files ("BF16"). */
void torch_writer_tensor(struct torch_writer *writer, const char *name, const char *dtype, int rank,
			 const int64_t *shape, const void *data);

/*
 * How the state dict is wrapped: "bare", "state_dict" (with plain values beside it), "generator",
 * "generator.state_dict"; or bare with every name behind a prefix: "model.", "module.",
 * "model.module.". Default: bare.
 */
void torch_writer_set_nesting(struct torch_writer *writer, const char *nesting);
void torch_writer_set_fill(struct torch_writer *writer, torch_fill fill, void *context);
/* As _rebuild_parameter of the tensor, as state dicts of older writers have it. */
void torch_writer_set_parameters(struct torch_writer *writer, bool parameters);

/* Returns the number of bytes; the test fails when the file cannot be written. */
uint64_t torch_writer_write(const struct torch_writer *writer, FILE *file);
uint64_t torch_writer_save(const struct torch_writer *writer, const char *path);
/* In memory, to be freed. */
void *torch_writer_bytes(const struct torch_writer *writer, size_t *ret_bytes);

/* ---- parts, for files that are wrong on purpose ---- */

/* The pickle alone, to be freed. */
void *torch_writer_pickle(const struct torch_writer *writer, size_t *ret_bytes);

struct zip_part {
	const char *name;
	const void *data;
	uint64_t bytes;
};

/* A zip of these parts, to be freed. */
void *torch_writer_zip(const struct zip_part *parts, size_t count, size_t *ret_bytes);
