/* A picture in the middle of a device's picture. */
#include "media/letterbox.h"

#include "base/util.h"

#include <errno.h>

int media_letterbox_init(struct media_letterbox *box, int width, int height, int target_width,
			 int target_height, bool enlarge)
{
	struct media_fit fit;
	int r = 0;

	*box = (struct media_letterbox){
		.place = media_place_contain(width, height, target_width, target_height, enlarge),
	};
	fit = (struct media_fit){ .width = box->place.width, .height = box->place.height };
	box->scales = fit.width != width || fit.height != height;
	if (box->scales) {
		r = media_resampler_init(&box->resampler, width, height, &fit, fit.width,
					 fit.height, true);
		box->scaled = malloc(3 * (size_t)fit.width * (size_t)fit.height);
		if (!box->scaled)
			r = -ENOMEM;
	}
	if (r == 0)
		r = media_pack_init(&box->pack, fit.width);
	if (r < 0)
		media_letterbox_finish(box);
	return r;
}

void media_letterbox_finish(struct media_letterbox *box)
{
	media_resampler_finish(&box->resampler);
	free(box->scaled);
	media_pack_finish(&box->pack);
	*box = (struct media_letterbox){ 0 };
}

void media_letterbox_run(struct media_letterbox *box, const uint8_t *rgb, size_t row_bytes,
			 const struct media_target *to)
{
	const struct media_place *p = &box->place;

	if (box->scales) {
		media_resampler_run(&box->resampler, rgb, row_bytes, box->scaled,
				    3 * (size_t)p->width);
		rgb = box->scaled;
		row_bytes = 3 * (size_t)p->width;
	}
	media_pack_run(&box->pack, rgb, row_bytes, p->height, to, p->x, p->y);
}
