/* Launcher of the depth-wise convolution. */
#include "kernels/cuda/mixffn.h"

#include "kernels/cuda/device.h"

/* [T][H][W][2][F] in boxes of a block's features of both halves, a stage's columns, its rows and their neighbours. */
static int map_encode(const struct kernel_device *device, const struct kernel_depthwise_glu *op,
		      CUtensorMap *map)
{
	const cuuint64_t f = (cuuint64_t)op->features, w = (cuuint64_t)op->width;
	const cuuint64_t h = (cuuint64_t)op->height;
	const cuuint64_t size[5] = { f, 2, w, h, (cuuint64_t)op->frames };
	const cuuint64_t stride[4] = { 2 * f, 4 * f, 4 * f * w, 4 * f * w * h };
	const cuuint32_t box[5] = { DEPTHWISE_FEATURES, 2, DEPTHWISE_COLUMNS, DEPTHWISE_ROWS + 2,
				    1 };
	const cuuint32_t step[5] = { 1, 1, 1, 1, 1 };

	return cuda_status(device->driver.cuTensorMapEncodeTiled(
		map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, (void *)(uintptr_t)op->a, size, stride,
		box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
		CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

/* Output columns of a block; two more are read. */
enum { DEPTHWISE_STRIP = 40 };

int cuda_run_depthwise_glu(struct kernel_device *device, const void *params,
			   struct kernel_queue *queue)
{
	const struct kernel_depthwise_glu *op = params;
	struct depthwise_glu_params p = {
		.a = op->a,
		.weight = op->weight,
		.bias = op->bias,
		.y = op->y,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.features = op->features,
		.strip = DEPTHWISE_STRIP,
	};
	const size_t rows = (size_t)op->frames * (size_t)op->height;
	const size_t groups =
		(size_t)op->frames * (((size_t)op->height + DEPTHWISE_ROWS - 1) / DEPTHWISE_ROWS);
	const bool fast = op->features % 8 == 0 && (uintptr_t)op->a % 16 == 0 &&
			  (uintptr_t)op->y % 16 == 0 && (uintptr_t)op->weight % 16 == 0 &&
			  (uintptr_t)op->bias % 16 == 0 && groups <= 65535;
	int r;

	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->features < 1)
		return -EINVAL;
	if (!fast)
		return cuda_launch_flat(device, queue, CUDA_KERNEL_depthwise_glu_any,
					rows * (size_t)op->width * (size_t)op->features, &p);
	r = map_encode(device, op, &p.map);
	if (r < 0)
		return r;
	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = CUDA_KERNEL_depthwise_glu,
				   .grid = { cuda_blocks((size_t)op->features, DEPTHWISE_FEATURES),
					     (unsigned int)groups,
					     cuda_blocks((size_t)op->width, DEPTHWISE_STRIP) },
				   .block = { 32, DEPTHWISE_WARPS },
				   .params = &p,
				   .dependent = true,
			   });
}
