/*
 * Every kernel by family (kernels/cuda/FAMILY.cu) and name. Add a line here and the kernel is loaded
 * when the device opens.
 */
#pragma once

/* One line each, so that additions meet in no other's line. */
/* clang-format off */
#define CUDA_FAMILIES(X) \
	X(weights) \
	X(peak) \
	X(attention) \
	X(attention_mma) \
	X(attention_wgmma) \
	X(gdn) \
	X(gdn_sums) \
	X(gdn_read) \
	X(gdn_any) \
	X(gdn_gates) \
	X(norm) \
	X(elementwise) \
	X(mixffn) \
	X(pixel) \
	X(gemm_mma) \
	X(gemm_mma_240) \
	X(gemm_wgmma) \
	X(gemm_any) \
	X(conv3d) \
	X(conv3d_mma) \
	X(conv3d_wgmma)

#define CUDA_KERNELS(X) \
	X(weights, weights_pack) \
	X(peak, peak_mma) \
	X(attention, attention_merge) \
	X(attention, attention_any) \
	X(attention_mma, attention_mma_32) \
	X(attention_mma, attention_mma_80) \
	X(attention_mma, attention_mma_112) \
	X(attention_wgmma, attention_wgmma) \
	X(gdn_gates, gdn_gates_8) \
	X(gdn_gates, gdn_gates_16) \
	X(gdn_gates, gdn_gates_24) \
	X(gdn_gates, gdn_gates_32) \
	X(gdn_gates, gdn_decay) \
	X(gdn_gates, gdn_mean_any) \
	X(gdn_gates, gdn_beta_any) \
	X(gdn_gates, gdn_decay_any) \
	X(gdn, gdn_inverse) \
	X(gdn_sums, gdn_sums_32) \
	X(gdn_sums, gdn_sums_80) \
	X(gdn_sums, gdn_sums_112) \
	X(gdn, gdn_scan_32) \
	X(gdn, gdn_scan_80) \
	X(gdn, gdn_scan_112) \
	X(gdn_read, gdn_read_32) \
	X(gdn_read, gdn_read_80) \
	X(gdn_read, gdn_read_112) \
	X(gdn_any, gdn_any_inverse) \
	X(gdn_any, gdn_any_sums) \
	X(gdn_any, gdn_any_scan) \
	X(gdn_any, gdn_any_read) \
	X(norm, layer_norm_modulate) \
	X(norm, layer_norm_modulate_any) \
	X(norm, rms_norm) \
	X(norm, rms_norm_any) \
	X(norm, qk_norm_rope) \
	X(norm, qk_norm_rope_any) \
	X(norm, rope_half) \
	X(norm, rope_shift) \
	X(elementwise, embedding) \
	X(elementwise, glu_gelu) \
	X(elementwise, concat) \
	X(elementwise, euler_step) \
	X(elementwise, health) \
	X(elementwise, channel_affine) \
	X(elementwise, noise) \
	X(mixffn, depthwise_glu) \
	X(mixffn, depthwise_glu_any) \
	X(pixel, patchify) \
	X(pixel, unpatchify) \
	X(conv3d_mma, conv3d_mma_n128) \
	X(conv3d_mma, conv3d_mma_n128_211) \
	X(conv3d_mma, conv3d_mma_n128_222) \
	X(conv3d_mma, conv3d_mma_n128_up) \
	X(conv3d_mma, conv3d_mma_n128_any) \
	X(conv3d_mma, conv3d_mma_n64) \
	X(conv3d_mma, conv3d_mma_n64_122) \
	X(conv3d_mma, conv3d_mma_n64_any) \
	X(conv3d, conv3d_finish) \
	X(conv3d, conv3d_plain) \
	X(conv3d, conv3d_norm) \
	X(conv3d, conv3d_norm_any) \
	X(conv3d_wgmma, conv3d_wgmma_n128) \
	X(conv3d_wgmma, conv3d_wgmma_n64) \
	X(conv3d_wgmma, conv3d_wgmma_n128_once) \
	X(conv3d_wgmma, conv3d_wgmma_n64_once) \
	CUDA_GEMM(X, gemm_mma, 128x256) \
	CUDA_GEMM(X, gemm_mma, 128x192) \
	CUDA_GEMM(X, gemm_mma, 128x128) \
	CUDA_GEMM(X, gemm_mma, 128x96) \
	X(gemm_mma, gemm_mma_128x128_any) \
	X(gemm_mma, gemm_mma_64x64_any) \
	X(gemm_mma_240, gemm_mma_240x192) \
	X(gemm_mma_240, gemm_mma_240x192_silu) \
	X(gemm_mma_240, gemm_mma_240x192_residual) \
	X(gemm_mma_240, gemm_mma_240x192_temporal) \
	X(gemm_mma_240, gemm_mma_224x192_frames) \
	CUDA_GEMM(X, gemm_wgmma, 240x192) \
	X(gemm_wgmma, gemm_wgmma_240x192_temporal) \
	X(gemm_any, gemm_any)

/* A kernel for each epilogue: kernels/cuda/gemm.h. */
#define CUDA_GEMM(X, family, tile) \
	X(family, family##_##tile) \
	X(family, family##_##tile##_silu) \
	X(family, family##_##tile##_residual)

/*
 * The ops there are (cuda_run_NAME), and those of them that want a workspace (cuda_workspace_NAME too).
 * What is not listed answers -ENOTSUP while a model is planned.
 */
#define CUDA_OPS(X) \
	X(layer_norm_modulate) \
	X(rms_norm) \
	X(qk_norm_rope) \
	X(rope_half) \
	X(rope_shift) \
	X(embedding) \
	X(glu_gelu) \
	X(concat) \
	X(euler_step) \
	X(health) \
	X(channel_affine) \
	X(noise) \
	X(depthwise_glu) \
	X(patchify) \
	X(unpatchify) \
	X(linear) \
	X(temporal_conv) \
	X(conv3d) \
	X(attention) \
	X(gdn_gates) \
	X(gdn)

#define CUDA_OPS_WITH_WORKSPACE(X) \
	X(linear) \
	X(conv3d) \
	X(attention) \
	X(gdn_gates) \
	X(gdn)
/* clang-format on */

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
