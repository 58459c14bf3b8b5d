/* Weights from the file's layout to that of the kernels, through two staging buffers. */
#include "kernels/cuda/table.h"
#include "kernels/cuda/weights.h"

size_t cuda_weight_prepare_bytes(const struct kernel_device *device,
				 const struct kernel_weight *weight)
{
	(void)device;
	return 2 * (size_t)weight->out * (size_t)weight->tap_count * (size_t)weight->in;
}

static int weights_type(enum kernel_dtype dtype)
{
	switch (dtype) {
	case KERNEL_F32:
		return CUDA_WEIGHTS_F32;
	case KERNEL_BF16:
		return CUDA_WEIGHTS_BF16;
	case KERNEL_F16:
		return CUDA_WEIGHTS_F16;
	case KERNEL_U8:
	case KERNEL_DTYPE_INVALID:
	case KERNEL_DTYPE_COUNT:
		break;
	}
	return -EINVAL;
}

/* What is copied next goes through this slot, once the device has read what was there before. */
static int slot_take(struct kernel_device *d, int *ret_slot)
{
	const int slot = d->staging_next;

	d->staging_next = !slot;
	*ret_slot = slot;
	return cuda_status(d->driver.cuEventSynchronize(d->staging_free[slot]));
}

/* From a file mapping to `to`: the copy to pinned memory here, the one to the device by its own engine. */
static int slot_copy(struct kernel_device *d, int slot, CUdeviceptr to, const void *from,
		     size_t bytes, struct kernel_queue *queue)
{
	memcpy(d->staging_host[slot], from, bytes);
	return cuda_status(
		d->driver.cuMemcpyHtoDAsync(to, d->staging_host[slot], bytes, queue->stream));
}

static int slot_leave(struct kernel_device *d, int slot, struct kernel_queue *queue)
{
	return cuda_status(d->driver.cuEventRecord(d->staging_free[slot], queue->stream));
}

/* Rows [first, first + rows) through one staging buffer. */
static int rows_pack(struct kernel_device *d, const struct kernel_weight *w, void *memory,
		     int first, int rows, struct kernel_queue *queue)
{
	const size_t row_bytes = (size_t)w->in * (size_t)w->taps * kernel_dtype_bytes(w->dtype);
	const size_t elements = (size_t)rows * (size_t)w->in * (size_t)w->tap_count;
	struct weights_pack_params params = {
		.to = memory,
		.type = weights_type(w->dtype),
		.rows = rows,
		.row_first = first,
		.out = w->out,
		.in = w->in,
		.taps = w->taps,
		.tap_first = w->tap_first,
		.tap_count = w->tap_count,
	};
	int r, slot;

	r = slot_take(d, &slot);
	params.from = (const void *)(uintptr_t)d->staging[slot];
	if (r >= 0)
		r = slot_copy(d, slot, d->staging[slot],
			      (const char *)w->data + (size_t)first * row_bytes,
			      (size_t)rows * row_bytes, queue);
	if (r >= 0)
		r = cuda_launch_flat(d, queue, CUDA_KERNEL_weights_pack, elements, &params);
	return r < 0 ? r : slot_leave(d, slot, queue);
}

/* A matrix that is on the device as in the file. */
static int bytes_send(struct kernel_device *d, const void *from, void *memory, size_t bytes,
		      struct kernel_queue *queue)
{
	int r = 0, slot;

	for (size_t at = 0; at < bytes && r >= 0; at += CUDA_STAGING_BYTES) {
		const size_t left = bytes - at;

		r = slot_take(d, &slot);
		if (r >= 0)
			r = slot_copy(d, slot, cuda_address((char *)memory + at),
				      (const char *)from + at,
				      left < CUDA_STAGING_BYTES ? left : CUDA_STAGING_BYTES, queue);
		if (r >= 0)
			r = slot_leave(d, slot, queue);
	}
	return r;
}

int cuda_weight_prepare(struct kernel_device *device, struct kernel_weight *weight, void *memory,
			struct kernel_queue *queue)
{
	const size_t row_bytes =
		(size_t)weight->in * (size_t)weight->taps * kernel_dtype_bytes(weight->dtype);
	const bool as_it_is = weight->dtype == KERNEL_BF16 && weight->taps == 1;
	int r, rows;

	if (!memory || !weight->data || weights_type(weight->dtype) < 0 || weight->out < 1 ||
	    weight->in < 1 || row_bytes > CUDA_STAGING_BYTES)
		return -EINVAL;
	r = cuda_enter(device);
	if (r >= 0 && as_it_is)
		r = bytes_send(device, weight->data, memory,
			       cuda_weight_prepare_bytes(device, weight), queue);
	rows = (int)(CUDA_STAGING_BYTES / row_bytes);
	for (int first = 0; r >= 0 && !as_it_is && first < weight->out; first += rows)
		r = rows_pack(device, weight, memory, first,
			      rows < weight->out - first ? rows : weight->out - first, queue);
	if (r >= 0)
		weight->prepared = memory;
	return r;
}
