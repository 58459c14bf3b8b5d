/* What stands for the CUDA back end where the program is built without the CUDA Toolkit. */
#include <errno.h>
#include <stdio.h>

#include "kernels/kernels.h"

static int absent_open(const struct kernel_device_options *options, char *text, size_t text_bytes,
		       struct kernel_device **ret)
{
	(void)options;
	(void)ret;
	if (text)
		(void)snprintf(text, text_bytes,
			       "unsupported: this program was built without the CUDA Toolkit "
			       "(nvcc 13.0 or newer)");
	return -ENOTSUP;
}

const struct kernel_backend kernel_backend_cuda = {
	.name = "cuda",
	.description = "one NVIDIA GPU, BF16 (not built in)",
	.activation = KERNEL_BF16,
	.weights_on_device = true,
	.open = absent_open,
};
