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

/* Rows [first, first + rows) through one staging buffer. */
static int rows_pack(struct kernel_device *d, const struct kernel_weight *w, void *memory,
		     int first, int rows, struct kernel_queue *queue)
{
	const size_t row_bytes = (size_t)w->in * (size_t)w->taps * kernel_dtype_bytes(w->dtype);
	const int slot = d->staging_next;
	const struct weights_pack_params params = {
		.from = (const void *)(uintptr_t)d->staging[slot],
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
	const size_t elements = (size_t)rows * (size_t)w->in * (size_t)w->tap_count;
	int r;

	d->staging_next = !slot;
	r = cuda_status(d->driver.cuStreamWaitEvent(queue->stream, d->staging_free[slot], 0));
	if (r >= 0)
		r = cuda_status(d->driver.cuMemcpyHtoDAsync(
			d->staging[slot], (const char *)w->data + (size_t)first * row_bytes,
			(size_t)rows * row_bytes, queue->stream));
	if (r >= 0)
		r = cuda_launch_flat(d, queue, CUDA_KERNEL_weights_pack, elements, &params);
	if (r >= 0)
		r = cuda_status(d->driver.cuEventRecord(d->staging_free[slot], queue->stream));
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
		r = cuda_status(device->driver.cuMemcpyHtoDAsync(
			cuda_address(memory), weight->data,
			cuda_weight_prepare_bytes(device, weight), queue->stream));
	rows = (int)(CUDA_STAGING_BYTES / row_bytes);
	for (int first = 0; r >= 0 && !as_it_is && first < weight->out; first += rows)
		r = rows_pack(device, weight, memory, first,
			      rows < weight->out - first ? rows : weight->out - first, queue);
	if (r >= 0)
		weight->prepared = memory;
	return r;
}
