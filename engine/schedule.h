/*
 * Time in the sampler: step sizes, the sinusoid of a time step, rotation angles.
 */
#pragma once

#include "engine/model_config.h"

/* σ_{i+1} − σ_i in F32, [steps]. */
void schedule_steps(const struct stream_config *config, float *ret_steps);

/* [cos(t·f_0 … t·f_127), sin(…)], f_i = exp(−ln(10000)·i/128), all in F32 (dit §3.3). */
enum { SCHEDULE_SINUSOID = 256 };
void schedule_sinusoid(int timestep, float ret_values[SCHEDULE_SINUSOID]);

/*
 * cos and sin of position·10000^(−2i/lanes) for i < pairs, lanes = 2·pairs; angles in FP64 (dit §5).
 * Frequencies are the FP64 values and their products with positions up to 2^53 exact, so that
 * rotations by a and b make the rotation by a + b however large they are: re-basing relies on it.
 */
void schedule_rotation(int64_t position, int pairs, float *ret_cos, float *ret_sin);
