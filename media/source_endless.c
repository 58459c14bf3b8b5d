/* A file that starts over at its end. Opened again each time: what it was the second time may differ. */
#include "media/source_ops.h"

#include "base/util.h"

#include <errno.h>

struct endless {
	struct media_source source;
	struct media_source_wish wish;
	char *path;
	struct media_source *inner;
	int64_t offset_ns; /* added to the time stamps of this round */
	int64_t end_ns;	   /* of the last picture, offset included */
	int64_t round_frames;
};

static void endless_close(struct media_source *source)
{
	struct endless *e = (struct endless *)source;

	(void)media_source_close(e->inner);
	free(e->path);
	free(e);
}

static int inner_open(struct endless *e, struct sana_error *error)
{
	const int r = media_source_file_open(&e->wish, &e->inner, error);

	if (r < 0)
		return r;
	e->source.info = *media_source_info(e->inner);
	e->source.info.duration_ns = 0;
	e->source.info.frames = 0;
	e->offset_ns = e->end_ns;
	e->round_frames = 0;
	return 0;
}

static int64_t frame_ns(const struct media_source_info *info)
{
	return info->fps_num > 0 ? 1000000000 * (int64_t)info->fps_den / info->fps_num : 1000000;
}

static int endless_read(struct media_source *source, struct media_picture *ret,
			struct sana_error *error)
{
	struct endless *e = (struct endless *)source;
	struct media_picture picture;
	int r;

	if (!e->inner) {
		r = inner_open(e, error);
		if (r < 0)
			return r;
	}
	r = media_source_read(e->inner, &picture, error);
	/* A file that is cut off is as good as one that ends there, unless nothing came of it. */
	if (r == 0 ||
	    (r < 0 && e->round_frames > 0 && strcmp(error->name, "source.truncated") == 0)) {
		e->inner = media_source_close(e->inner);
		return endless_read(source, ret, error);
	}
	if (r < 0)
		return r;
	picture.timestamp_ns += e->offset_ns;
	e->round_frames++;
	e->end_ns = picture.timestamp_ns +
		    (picture.duration_ns > 0 ? picture.duration_ns : frame_ns(&e->source.info));
	*ret = picture;
	return 1;
}

static const struct media_source_ops endless_ops = { endless_read, endless_close };

int media_source_endless_open(const struct media_source_wish *wish, struct media_source **ret,
			      struct sana_error *error)
{
	struct endless *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	e->source.ops = &endless_ops;
	e->path = strdup(wish->path);
	e->wish = *wish;
	e->wish.path = e->path;
	r = e->path ? inner_open(e, error) :
		      sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	if (r < 0 || e->source.info.live) {
		/* A device has no end; it needs nothing around it. */
		if (r == 0)
			*ret = TAKE_PTR(e->inner);
		endless_close(&e->source);
		return r;
	}
	*ret = &e->source;
	return 0;
}
