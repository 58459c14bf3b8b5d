/* sana-edit: pictures of a source as frames of the stream, at its times or at a constant rate. */
#include "tools/edit/edit.h"

#include "media/convert.h"

#include <errno.h>

/* One converted picture. */
struct picture {
	uint8_t *rgb;
	int64_t timestamp_ns, duration_ns;
	bool there;
};

struct edit_frames {
	struct media_source *source;
	struct media_convert *convert;
	struct edit_rate rate; /* num 0: the source's own times */
	int64_t frame_ns;      /* of a picture whose duration nobody knows */
	size_t row_bytes;
	struct picture now, next; /* at a constant rate: shown, and the one after it */
	int64_t tick;		  /* number of the next frame at a constant rate */
	int end;		  /* what reading ended with: 1: not yet; 0; or an error */
	struct sana_error error;
};

void edit_frames_destroy(struct edit_frames *frames)
{
	if (!frames)
		return;
	(void)media_convert_destroy(frames->convert);
	free(frames->now.rgb);
	free(frames->next.rgb);
	free(frames);
}

int edit_frames_create(struct media_source *source, const struct edit_options *options, int width,
		       int height, struct edit_frames **ret, struct sana_error *error)
{
	const struct media_source_info *info = media_source_info(source);
	const size_t bytes = 3 * (size_t)width * (size_t)height;
	struct edit_frames *frames = calloc(1, sizeof(*frames));
	int r;

	if (!frames)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	frames->source = source;
	frames->row_bytes = 3 * (size_t)width;
	frames->end = 1;
	frames->frame_ns = info->fps_num ? EDIT_SECOND_NS * info->fps_den / info->fps_num :
					   EDIT_SECOND_NS / 24;
	/* Sources without times of their own were opened at this rate already. */
	if (info->timed)
		frames->rate = options->fps;
	frames->now.rgb = malloc(bytes);
	frames->next.rgb = malloc(bytes);
	r = frames->now.rgb && frames->next.rgb ? 0 : -ENOMEM;
	if (r < 0)
		(void)sana_error_set(error, r, "memory", "Out of memory.");
	if (r == 0)
		r = media_convert_create(width, height, !options->no_antialias, &frames->convert,
					 error);
	if (r < 0) {
		edit_frames_destroy(frames);
		return r;
	}
	*ret = frames;
	return 0;
}

static int picture_read(struct edit_frames *f, struct picture *to, struct sana_error *error)
{
	struct media_picture picture;
	int r;

	to->there = false;
	r = media_source_read(f->source, &picture, error);
	if (r <= 0)
		return r;
	r = media_convert_run(f->convert, &picture, to->rgb, f->row_bytes, error);
	if (r < 0)
		return r;
	to->timestamp_ns = picture.timestamp_ns;
	to->duration_ns = picture.duration_ns > 0 ? picture.duration_ns : f->frame_ns;
	to->there = true;
	return 1;
}

/* Time of a frame at the constant rate; exact for any frame number that fits. */
static int64_t tick_ns(const struct edit_frames *f, int64_t tick)
{
	const int64_t units = tick * f->rate.den;

	return units / f->rate.num * EDIT_SECOND_NS +
	       units % f->rate.num * EDIT_SECOND_NS / f->rate.num;
}

/* Reads ahead; an error waits until the frames before it are out. */
static void next_read(struct edit_frames *f)
{
	f->end = picture_read(f, &f->next, &f->error);
}

static void next_take(struct edit_frames *f)
{
	const struct picture old = f->now;

	f->now = f->next;
	f->next = old;
	f->next.there = false;
	next_read(f);
}

static int constant_next(struct edit_frames *f, struct edit_frame *ret, struct sana_error *error)
{
	if (!f->now.there) {
		next_read(f);
		if (f->next.there) {
			next_take(f);
			while (tick_ns(f, f->tick) < f->now.timestamp_ns)
				f->tick++;
		}
	}
	while (f->next.there && f->next.timestamp_ns <= tick_ns(f, f->tick))
		next_take(f);
	if (!f->now.there ||
	    (!f->next.there && tick_ns(f, f->tick) >= f->now.timestamp_ns + f->now.duration_ns)) {
		if (f->end < 0 && error)
			*error = f->error;
		return f->end;
	}
	*ret = (struct edit_frame){
		.rgb = f->now.rgb,
		.timestamp_ns = tick_ns(f, f->tick),
		.duration_ns = tick_ns(f, f->tick + 1) - tick_ns(f, f->tick),
	};
	f->tick++;
	return 1;
}

int edit_frames_next(struct edit_frames *frames, struct edit_frame *ret, struct sana_error *error)
{
	int r;

	if (frames->rate.num)
		return constant_next(frames, ret, error);
	r = picture_read(frames, &frames->now, error);
	if (r > 0)
		*ret = (struct edit_frame){ frames->now.rgb, frames->now.timestamp_ns,
					    frames->now.duration_ns };
	return r;
}
