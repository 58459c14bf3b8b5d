/*
 * Compares pictures that the guest recorded (tests/helpers/v4l2_read, kms_writeback) with others:
 *
 *	frames edited RECORD PATTERN.png LEAST   the record shows the numbered pictures, in order, none
 *						 twice in a row counted, none missing; LEAST of them or more
 *	frames differ RECORD CLIP.y4m		 no picture of the record is one of the clip's (of `frames clip`)
 *	frames same RECORD RECORD LEAST		 each picture of the second is one of the first, in order
 *	frames card RECORD FROM_MS TO_MS	 between these times it shows one picture, mostly of one grey
 *	frames clip WxH FPS COUNT FILE.y4m	 makes a clip whose every frame is another
 *
 * Compared is what the record has: Y'CbCr of BT.601 in limited range, chroma of a pair or square of
 * pixels averaged; R'G'B' is converted here, in floating point, by the formulas alone.
 */
#include <png.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Grey levels. Both sides round once (1/2 each), and the processors differ in the last bits of what
 * the model computes, which moves a sample over a rounding tie: 1 more.
 */
enum { NEAR = 2 };

enum { SIDE_MAX = 4096, FRAMES_MAX = 5000 };

struct clip {
	int width, height, count;
	int chroma_width, chroma_height;
	size_t bytes; /* of one picture: Y, Cb, Cr */
	uint8_t *pictures[FRAMES_MAX];
	long long ms[FRAMES_MAX];
};

static void die(const char *what, const char *where)
{
	(void)fprintf(stderr, "frames: %s: %s\n", where, what);
	exit(1);
}

static void *take(size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		die("out of memory", "");
	return p;
}

static void clip_shape(struct clip *c, int width, int height, int vertical)
{
	c->width = width;
	c->height = height;
	c->chroma_width = width / 2;
	c->chroma_height = height / vertical;
	c->bytes = (size_t)width * (size_t)height +
		   2 * (size_t)c->chroma_width * (size_t)c->chroma_height;
}

static uint8_t level(double v)
{
	return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : (int)(v + 0.5));
}

/* One of Y', Cb, Cr of a pixel. */
static double sample(const uint8_t *rgb, int plane)
{
	static const double rows[3][3] = { { 65.481, 128.553, 24.966 },
					   { -37.797, -74.203, 112.0 },
					   { 112.0, -93.786, -18.214 } };
	const double *k = rows[plane];

	return (plane ? 128 : 16) + (k[0] * rgb[0] + k[1] * rgb[1] + k[2] * rgb[2]) / 255;
}

static void rgb_convert(const struct clip *c, const uint8_t *rgb, uint8_t *to)
{
	const int vertical = c->height / c->chroma_height;
	const size_t row = 3 * (size_t)c->width;

	for (size_t i = 0; i < (size_t)c->width * (size_t)c->height; i++)
		*to++ = level(sample(rgb + 3 * i, 0));
	for (int plane = 1; plane < 3; plane++)
		for (int y = 0; y < c->chroma_height; y++)
			for (int x = 0; x < c->chroma_width; x++) {
				const uint8_t *p =
					rgb + (size_t)(y * vertical) * row + 6 * (size_t)x;
				double sum = 0;

				for (int v = 0; v < vertical; v++)
					sum += sample(p + (size_t)v * row, plane) +
					       sample(p + (size_t)v * row + 3, plane);
				*to++ = level(sum / (2 * vertical));
			}
}

static void yuyv_convert(const struct clip *c, const uint8_t *from, size_t row_bytes, uint8_t *to)
{
	const int offsets[3] = { 0, 1, 3 };

	for (int plane = 0; plane < 3; plane++)
		for (int y = 0; y < c->height; y++)
			for (int x = 0; x < (plane ? c->chroma_width : c->width); x++)
				*to++ = from[(size_t)y * row_bytes + (size_t)x * (plane ? 4 : 2) +
					     (size_t)offsets[plane]];
}

static void planes_convert(const struct clip *c, const uint8_t *from, size_t row_bytes, bool pairs,
			   uint8_t *to)
{
	const uint8_t *chroma = from + row_bytes * (size_t)c->height;
	const size_t chroma_row = pairs ? row_bytes : row_bytes / 2;

	for (int y = 0; y < c->height; y++, to += c->width)
		memcpy(to, from + (size_t)y * row_bytes, (size_t)c->width);
	for (int plane = 0; plane < 2; plane++)
		for (int y = 0; y < c->chroma_height; y++)
			for (int x = 0; x < c->chroma_width; x++)
				*to++ = pairs ? chroma[(size_t)y * chroma_row + 2 * (size_t)x +
						       (size_t)plane] :
						chroma[(size_t)(plane * c->chroma_height + y) *
							       chroma_row +
						       (size_t)x];
}

static void bgrx_convert(const struct clip *c, const uint8_t *from, uint8_t *to)
{
	const size_t pixels = (size_t)c->width * (size_t)c->height;
	uint8_t *rgb = take(3 * pixels);

	for (size_t i = 0; i < pixels; i++)
		for (size_t k = 0; k < 3; k++)
			rgb[3 * i + k] = from[4 * i + 2 - k];
	rgb_convert(c, rgb, to);
	free(rgb);
}

/* `like` gives the chroma's form to records of R'G'B'. */
static struct clip *record_read(const char *path, const struct clip *like)
{
	struct clip *c = take(sizeof(*c));
	FILE *file = fopen(path, "rb");
	char format[8];
	int width, height, row_bytes;
	size_t bytes;

	if (!file || fscanf(file, "%4s %d %d %d%*c", format, &width, &height, &row_bytes) != 4 ||
	    width < 2 || height < 2 || width > SIDE_MAX || height > SIDE_MAX)
		die("not a record", path);
	clip_shape(c, width, height,
		   like			       ? like->height / like->chroma_height :
		   strcmp(format, "YUYV") == 0 ? 1 :
						 2);
	while (c->count < FRAMES_MAX &&
	       fscanf(file, "%lld %zu%*c", &c->ms[c->count], &bytes) == 2) {
		uint8_t *raw = take(bytes + 1), *to = take(c->bytes);

		if (fread(raw, 1, bytes, file) != bytes)
			break;
		if (strcmp(format, "YUYV") == 0)
			yuyv_convert(c, raw, (size_t)row_bytes, to);
		else if (strcmp(format, "BGRX") == 0)
			bgrx_convert(c, raw, to);
		else if (strcmp(format, "NV12") == 0 || strcmp(format, "YU12") == 0)
			planes_convert(c, raw, (size_t)row_bytes, format[0] == 'N', to);
		else
			die("unknown format", format);
		free(raw);
		c->pictures[c->count++] = to;
	}
	(void)fclose(file);
	return c;
}

/* Numbered pictures from 1, in the form of `like`. */
static struct clip *pictures_read(const char *pattern, const struct clip *like)
{
	struct clip *c = take(sizeof(*c));
	char path[4096];

	clip_shape(c, like->width, like->height, like->height / like->chroma_height);
	while (c->count < FRAMES_MAX) {
		png_image image = { .version = PNG_IMAGE_VERSION };
		uint8_t *rgb;

		/* The pattern is this test's own. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(path, sizeof(path), pattern, c->count + 1);
#pragma GCC diagnostic pop
		if (!png_image_begin_read_from_file(&image, path))
			break;
		image.format = PNG_FORMAT_RGB;
		if ((int)image.width != c->width || (int)image.height != c->height)
			die("another size than the record", path);
		rgb = take(PNG_IMAGE_SIZE(image));
		if (!png_image_finish_read(&image, NULL, rgb, 0, NULL))
			die("cannot be read", path);
		c->pictures[c->count] = take(c->bytes);
		rgb_convert(c, rgb, c->pictures[c->count++]);
		free(rgb);
	}
	if (c->count == 0)
		die("no pictures", pattern);
	return c;
}

/* A clip of clip_make, in the form of `like`. */
static struct clip *clip_read(const char *path, const struct clip *like)
{
	struct clip *c = take(sizeof(*c));
	const size_t pixels = (size_t)like->width * (size_t)like->height;
	const int vertical = like->height / like->chroma_height;
	uint8_t *raw = take(3 * pixels);
	FILE *file = fopen(path, "rb");
	int width, height;

	if (!file || fscanf(file, "YUV4MPEG2 W%d H%d%*[^\n]%*c", &width, &height) != 2 ||
	    width != like->width || height != like->height)
		die("not a clip of the record's size", path);
	clip_shape(c, width, height, vertical);
	while (c->count < FRAMES_MAX && fscanf(file, "FRAME%*c") == 0 &&
	       fread(raw, 1, 3 * pixels, file) == 3 * pixels) {
		uint8_t *to = c->pictures[c->count++] = take(c->bytes);

		memcpy(to, raw, pixels);
		to += pixels;
		for (size_t plane = 1; plane < 3; plane++)
			for (int y = 0; y < c->chroma_height; y++)
				for (int x = 0; x < c->chroma_width; x++) {
					const uint8_t *from = raw + plane * pixels + 2 * (size_t)x;
					int sum = 0;

					for (int v = 0; v < vertical; v++, from += width)
						sum += from[(size_t)(y * vertical * width)] +
						       from[(size_t)(y * vertical * width) + 1];
					*to++ = (uint8_t)((sum + vertical) / (2 * vertical));
				}
	}
	if (c->count == 0)
		die("no pictures", path);
	(void)fclose(file);
	free(raw);
	return c;
}

static int distance(const struct clip *c, const uint8_t *a, const uint8_t *b)
{
	int most = 0;

	for (size_t i = 0; i < c->bytes; i++) {
		const int d = abs(a[i] - b[i]);

		most = d > most ? d : most;
	}
	return most;
}

/* Of the pictures of `in` from `from` on, the first that is near; −1. */
static int find(const struct clip *in, const uint8_t *picture, int from)
{
	for (int i = from; i < in->count; i++)
		if (distance(in, in->pictures[i], picture) <= NEAR)
			return i;
	return -1;
}

static bool is_repeated(const struct clip *c, int i)
{
	return i > 0 && memcmp(c->pictures[i], c->pictures[i - 1], c->bytes) == 0;
}

/*
 * Pictures of `record` in `in`: in order, and `complete`: without leaving any out. What comes before the
 * first that is found is another thing (a card, pass-through) and is counted.
 */
static int order_check(const struct clip *record, const struct clip *in, bool complete, int least)
{
	int last = -1, first = -1, found = 0, before = 0, most = 0;

	for (int i = 0; i < record->count; i++) {
		int at;

		if (is_repeated(record, i))
			continue;
		at = find(in, record->pictures[i], last < 0 ? 0 : last);
		if (at < 0 && last < 0) {
			before++;
			continue;
		}
		if (at < 0 || at == last || (complete && last >= 0 && at != last + 1)) {
			(void)printf("picture %d at %lld ms: %s; the one before it was %d\n", i,
				     record->ms[i],
				     at < 0	? "is none of them" :
				     at == last ? "comes twice" :
						  "comes too early",
				     last);
			return 1;
		}
		const int d = distance(in, in->pictures[at], record->pictures[i]);

		most = d > most ? d : most;
		first = first < 0 ? at : first;
		last = at;
		found++;
	}
	(void)printf("%d pictures found (%d to %d), at least %d wanted, at most %d levels apart; "
		     "%d others before them\n",
		     found, first, last, least, most, before);
	return found >= least ? 0 : 1;
}

static int differ_check(const struct clip *record, const struct clip *in)
{
	int nearest = 255, looked = 0;

	for (int i = 0; i < record->count; i++) {
		if (is_repeated(record, i))
			continue;
		looked++;
		for (int k = 0; k < in->count; k++) {
			const int d = distance(in, in->pictures[k], record->pictures[i]);

			nearest = d < nearest ? d : nearest;
		}
	}
	(void)printf("%d pictures, none nearer than %d levels to %d others\n", looked, nearest,
		     in->count);
	return looked > 0 && nearest > NEAR ? 0 : 1;
}

/* Cards have a background of one colour and letters on it; edited pictures have not. */
static int card_check(const struct clip *record, long long from_ms, long long to_ms)
{
	const size_t pixels = (size_t)record->width * (size_t)record->height;
	int looked = 0, shares[256], most = 0;

	for (int i = 0; i < record->count; i++) {
		if (record->ms[i] < from_ms || record->ms[i] >= to_ms)
			continue;
		if (looked++ > 0 && !is_repeated(record, i)) {
			(void)printf("picture %d at %lld ms is another one\n", i, record->ms[i]);
			return 1;
		}
		memset(shares, 0, sizeof(shares));
		most = 0;
		for (size_t p = 0; p < pixels; p++) {
			int *share = &shares[record->pictures[i][p]];

			most = ++*share > most ? *share : most;
		}
	}
	(void)printf("%d pictures, %d %% of one grey\n", looked,
		     (int)(100 * (size_t)most / pixels));
	return looked > 0 && 2 * (size_t)most > pixels ? 0 : 1;
}

/* Slopes that wander and a speckle that is another one in each frame; colours that R'G'B' has. */
static int clip_make(int width, int height, int fps, int count, const char *path)
{
	FILE *file = fopen(path, "wb");
	uint32_t speckle = 1;

	if (!file)
		die("cannot be written", path);
	(void)fprintf(file, "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C444\n", width, height, fps);
	for (int t = 0; t < count; t++) {
		(void)fputs("FRAME\n", file);
		for (int plane = 0; plane < 3; plane++)
			for (int y = 0; y < height; y++)
				for (int x = 0; x < width; x++) {
					const int wave = (x * (3 - plane) + y * (1 + plane) +
							  t * (5 + 2 * plane)) %
							 160;
					const int fold = wave > 80 ? 160 - wave : wave;

					speckle = speckle * 1664525 + 1013904223;
					(void)fputc(plane ? 108 + fold / 2 + (int)(speckle >> 30) :
							    64 + fold + (int)(speckle >> 28),
						    file);
				}
	}
	return fclose(file) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	int width, height;

	if (argc == 5 && strcmp(argv[1], "edited") == 0) {
		const struct clip *record = record_read(argv[2], NULL);

		return order_check(record, pictures_read(argv[3], record), true, atoi(argv[4]));
	}
	if (argc == 4 && strcmp(argv[1], "differ") == 0) {
		const struct clip *record = record_read(argv[2], NULL);

		return differ_check(record, clip_read(argv[3], record));
	}
	if (argc == 5 && strcmp(argv[1], "same") == 0) {
		const struct clip *record = record_read(argv[2], NULL);

		return order_check(record_read(argv[3], record), record, false, atoi(argv[4]));
	}
	if (argc == 5 && strcmp(argv[1], "card") == 0)
		return card_check(record_read(argv[2], NULL), atoll(argv[3]), atoll(argv[4]));
	if (argc == 6 && strcmp(argv[1], "clip") == 0 &&
	    sscanf(argv[2], "%dx%d", &width, &height) == 2)
		return clip_make(width, height, atoi(argv[3]), atoi(argv[4]), argv[5]);
	(void)fprintf(stderr, "usage: frames edited RECORD PATTERN.png LEAST\n"
			      "       frames differ RECORD CLIP.y4m\n"
			      "       frames same RECORD RECORD LEAST\n"
			      "       frames card RECORD FROM_MS TO_MS\n"
			      "       frames clip WxH FPS COUNT FILE.y4m\n");
	return 2;
}
