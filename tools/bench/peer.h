/* The vendor's matrix product, cublasLt, opened at run time: what ours is measured against. */
#pragma once

#include <stddef.h>

/*
 * Best rate of D = X·Wᵀ, BF16 with F32 sums, [side][side] each, over the algorithms its heuristic offers, on
 * the device whose context is current. Zero and `note` when it cannot be had; else `note` names the library.
 */
double peer_gemm_flops(int side, const void *x, const void *w, void *y, void *workspace,
		       size_t workspace_bytes, char *note, size_t note_bytes);
