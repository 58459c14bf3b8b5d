/* Scale to cover, then crop the middle. */
#include "media/geometry.h"

#include <math.h>

/* Half of what sticks out, rounded down. */
static int margin(int scaled, int target)
{
	return scaled > target ? (scaled - target) / 2 : 0;
}

struct media_fit media_fit_cover(int width, int height, double aspect, int target_width,
				 int target_height)
{
	const double shown = width * aspect;
	const double by_height = (double)target_height / height;
	const double by_width = (double)target_width / shown;
	struct media_fit fit = { .width = target_width, .height = target_height };

	/* rint: to nearest, ties to even, in the rounding mode every program starts in. */
	if (by_height > by_width)
		fit.width = (int)rint(shown * by_height);
	else
		fit.height = (int)rint(height * by_width);
	fit.x0 = margin(fit.width, target_width);
	fit.y0 = margin(fit.height, target_height);
	return fit;
}

static int even(double size, int most)
{
	const int nearest = 2 * (int)rint(size / 2.0);

	return nearest < 2 ? 2 : nearest > most ? most & ~1 : nearest;
}

struct media_place media_place_contain(int width, int height, int target_width, int target_height,
				       bool enlarge)
{
	const double by_width = (double)target_width / width;
	const double by_height = (double)target_height / height;
	double scale = by_width < by_height ? by_width : by_height;
	struct media_place place;

	if (scale > 1.0 && !enlarge)
		scale = 1.0;
	place.width = even(width * scale, target_width);
	place.height = even(height * scale, target_height);
	place.x = (target_width - place.width) / 2 & ~1;
	place.y = (target_height - place.height) / 2 & ~1;
	return place;
}
