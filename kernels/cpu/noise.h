/* The random generator behind the noise op. */
#pragma once

#include <stdint.h>

/* Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
void cpu_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4]);
