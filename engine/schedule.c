/* Step sizes, sinusoids and rotation angles. */
#include "engine/schedule.h"

#include <math.h>

void schedule_steps(const struct stream_config *config, float *ret_steps)
{
	for (int i = 0; i < config->steps; i++)
		ret_steps[i] = config->sigmas[i + 1] - config->sigmas[i];
}

void schedule_sinusoid(int timestep, float ret_values[SCHEDULE_SINUSOID])
{
	const int half = SCHEDULE_SINUSOID / 2;
	const float c = (float)-log(10000.0);
	const float t = (float)timestep;

	for (int i = 0; i < half; i++) {
		/* exp in FP64 of the F32 argument: within half an ulp of the exact F32 value. */
		const float argument = c * (float)i / (float)half;
		const float frequency = (float)exp((double)argument);
		const float angle = t * frequency;

		ret_values[i] = (float)cos((double)angle);
		ret_values[half + i] = (float)sin((double)angle);
	}
}

void schedule_rotation(int64_t position, int pairs, float *ret_cos, float *ret_sin)
{
	for (int i = 0; i < pairs; i++) {
		const double frequency = pow(10000.0, -(double)i / pairs);
		const double angle = (double)position * frequency;
		/* What the product lost: up to 1.2e-4 radians at 2^40. */
		const double rest = fma((double)position, frequency, -angle);

		ret_cos[i] = (float)(cos(angle) * cos(rest) - sin(angle) * sin(rest));
		ret_sin[i] = (float)(sin(angle) * cos(rest) + cos(angle) * sin(rest));
	}
}
