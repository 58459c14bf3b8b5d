/*
 * Every kernel by family (kernels/cuda/FAMILY.cu) and name. Add a line here and the kernel is loaded
 * when the device opens.
 */
#pragma once

#define CUDA_FAMILIES(X) X(weights)

#define CUDA_KERNELS(X) X(weights, weights_pack)

/*
 * The ops there are (cuda_run_NAME), and those of them that want a workspace (cuda_workspace_NAME too).
 * What is not listed answers −ENOTSUP while a model is planned.
 */
#define CUDA_OPS(X)

#define CUDA_OPS_WITH_WORKSPACE(X)

enum cuda_family {
#define X(family) CUDA_FAMILY_##family,
	CUDA_FAMILIES(X)
#undef X
		CUDA_FAMILY_COUNT,
};

enum cuda_kernel {
#define X(family, name) CUDA_KERNEL_##name,
	CUDA_KERNELS(X)
#undef X
		CUDA_KERNEL_COUNT,
};
