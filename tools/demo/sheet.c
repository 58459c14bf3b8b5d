/* The contact sheet: clips side by side at the same times, with labels, as a PNG. */
#include "tools/demo/demo.h"

#include <cairo.h>
#include <errno.h>

#include "media/convert.h"
#include "media/source.h"

/* Rows and headings; what a command line holds. */
enum { MAX_ITEMS = 64 };

struct sheet {
	cairo_surface_t *surface;
	cairo_t *draw;
	struct media_convert *convert;
	uint8_t *rgb; /* one cell */
};

static const double text_size = 15, small_size = 13, title_size = 19;
static const double white = 0.93, grey = 0.62;

static void sheet_finish(struct sheet *sheet)
{
	if (sheet->draw)
		cairo_destroy(sheet->draw);
	if (sheet->surface)
		cairo_surface_destroy(sheet->surface);
	(void)media_convert_destroy(sheet->convert);
	free(sheet->rgb);
}

static int sheet_init(struct sheet *sheet, int headings, int rows, struct sana_error *error)
{
	const double level = SHEET_BACKGROUND / 255.0;

	sheet->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, SHEET_WIDTH,
						    sheet_y(headings, rows) + SHEET_MARGIN);
	sheet->draw = cairo_create(sheet->surface);
	if (cairo_status(sheet->draw) != CAIRO_STATUS_SUCCESS)
		return sana_error_set(error, -ENOMEM, "sheet.draw", "The sheet: %s.",
				      cairo_status_to_string(cairo_status(sheet->draw)));
	cairo_set_source_rgb(sheet->draw, level, level, level);
	cairo_paint(sheet->draw);
	sheet->rgb = malloc(3 * (size_t)SHEET_CELL_WIDTH * SHEET_CELL_HEIGHT);
	if (!sheet->rgb)
		return -ENOMEM;
	return media_convert_create(SHEET_CELL_WIDTH, SHEET_CELL_HEIGHT, true, &sheet->convert,
				    error);
}

static void font_set(struct sheet *sheet, double size, double level, bool bold)
{
	cairo_select_font_face(sheet->draw, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
			       bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
	cairo_set_font_size(sheet->draw, size);
	cairo_set_source_rgb(sheet->draw, level, level, level);
}

static void text_draw(struct sheet *sheet, double x, double y, const char *text)
{
	cairo_move_to(sheet->draw, x, y);
	cairo_show_text(sheet->draw, text);
}

static double text_width(struct sheet *sheet, const char *text)
{
	cairo_text_extents_t extents;

	cairo_text_extents(sheet->draw, text, &extents);
	return extents.x_advance;
}

/* Lines as long as the label column allows; breaks at spaces. */
static void label_draw(struct sheet *sheet, double y, const char *label)
{
	char line[256] = "", longer[256];
	char words[256], *rest = words, *word;

	font_set(sheet, text_size, white, false);
	(void)snprintf(words, sizeof(words), "%s", label);
	while ((word = strsep(&rest, " ")) != NULL) {
		(void)snprintf(longer, sizeof(longer), "%.120s%s%.120s", line, *line ? " " : "",
			       word);
		if (*line && text_width(sheet, longer) > SHEET_LABEL_WIDTH - 16) {
			text_draw(sheet, SHEET_MARGIN, y, line);
			y += 1.3 * text_size;
			(void)snprintf(longer, sizeof(longer), "%.120s", word);
		}
		(void)snprintf(line, sizeof(line), "%s", longer);
	}
	text_draw(sheet, SHEET_MARGIN, y, line);
}

/* The time of column `column` of clips of that length: the middle of its share. */
static int64_t column_time(int column, int64_t length_ns)
{
	return length_ns * (2 * column + 1) / (2 * SHEET_COLUMNS);
}

static void heading_draw(struct sheet *sheet, double y, const char *title, int64_t length_ns)
{
	char text[32];

	font_set(sheet, title_size, white, true);
	text_draw(sheet, SHEET_MARGIN, y + 40, title);
	font_set(sheet, small_size, grey, false);
	for (int i = 0; i < SHEET_COLUMNS; i++) {
		(void)snprintf(text, sizeof(text), "%.1f s",
			       (double)column_time(i, length_ns) / 1e9);
		text_draw(sheet, sheet_cell_x(i) + 2, y + 42, text);
	}
}

static void cell_draw(struct sheet *sheet, int x, int y)
{
	unsigned char *pixels = cairo_image_surface_get_data(sheet->surface);
	const int stride = cairo_image_surface_get_stride(sheet->surface);

	cairo_surface_flush(sheet->surface);
	for (int row = 0; row < SHEET_CELL_HEIGHT; row++) {
		const uint8_t *from = sheet->rgb + 3 * (size_t)row * SHEET_CELL_WIDTH;
		unsigned char *to = pixels + (ptrdiff_t)(y + row) * stride + 4 * (ptrdiff_t)x;

		for (int i = 0; i < SHEET_CELL_WIDTH; i++) {
			const uint32_t pixel = (uint32_t)from[3 * i] << 16 |
					       (uint32_t)from[3 * i + 1] << 8 | from[3 * i + 2];

			memcpy(to + 4 * (ptrdiff_t)i, &pixel, sizeof(pixel));
		}
	}
	cairo_surface_mark_dirty(sheet->surface);
}

int demo_length(const char *path, int64_t limit_ns, int64_t *ret_length_ns,
		struct sana_error *error)
{
	const struct media_source_wish wish = { .path = path };
	_cleanup_(media_source_closep) struct media_source *source = NULL;
	struct media_picture picture;
	int64_t first_ns = -1, last_ns = 0;
	int r;

	r = media_source_open(&wish, &source, error);
	if (r < 0)
		return r;
	while (last_ns < limit_ns && (r = media_source_read(source, &picture, error)) > 0) {
		if (first_ns < 0)
			first_ns = picture.timestamp_ns;
		last_ns = picture.timestamp_ns - first_ns;
	}
	if (r < 0)
		return r;
	*ret_length_ns = MIN_OF(last_ns, limit_ns);
	return 0;
}

static int row_draw(struct sheet *sheet, int y, const char *path, int64_t length_ns,
		    struct sana_error *error)
{
	const struct media_source_wish wish = { .path = path };
	_cleanup_(media_source_closep) struct media_source *source = NULL;
	struct media_picture picture;
	int64_t first_ns = -1;
	int column = 0, r;

	r = media_source_open(&wish, &source, error);
	if (r < 0)
		return r;
	while (column < SHEET_COLUMNS) {
		r = media_source_read(source, &picture, error);
		if (r <= 0)
			break;
		if (first_ns < 0)
			first_ns = picture.timestamp_ns;
		/* A clip of few pictures shows one of them in several columns. */
		while (column < SHEET_COLUMNS &&
		       picture.timestamp_ns - first_ns >= column_time(column, length_ns)) {
			r = media_convert_run(sheet->convert, &picture, sheet->rgb,
					      3 * (size_t)SHEET_CELL_WIDTH, error);
			if (r < 0)
				return r;
			cell_draw(sheet, sheet_cell_x(column++), y);
		}
	}
	return r < 0 ? r : 0;
}

/* The file of a row, NULL for a heading. *ret_label: a copy to be freed. */
static const char *item_split(const char *item, char **ret_label)
{
	const char *equals = strchr(item, '=');

	*ret_label = equals ? strndup(item, (size_t)(equals - item)) : strdup(item);
	return equals ? equals + 1 : NULL;
}

/* The shortest clip of the group that begins at item[0]. */
static int group_measure(char **item, int items, int64_t *ret_length_ns, struct sana_error *error)
{
	int64_t shortest = INT64_MAX;
	int last = 0, r;

	while (last + 1 < items && strchr(item[last + 1], '='))
		last++;
	/* Backwards: the source comes first and may be hours long, of which edits show seconds. */
	for (int i = last; i > 0; i--) {
		r = demo_length(strchr(item[i], '=') + 1, shortest, &shortest, error);
		if (r < 0)
			return r;
	}
	*ret_length_ns = shortest == INT64_MAX ? 0 : shortest;
	return 0;
}

static int items_draw(struct sheet *sheet, char **item, int items, struct sana_error *error)
{
	int64_t length_ns = 0;
	int headings = 0, rows = 0, r = 0;

	for (int i = 0; i < items && r >= 0; i++) {
		_cleanup_(freep) char *label = NULL;
		const char *path = item_split(item[i], &label);
		const int y = sheet_y(headings, rows);

		if (!label)
			return -ENOMEM;
		if (path) {
			label_draw(sheet, y + text_size + 2, label);
			r = row_draw(sheet, y, path, length_ns, error);
			rows++;
		} else {
			r = group_measure(item + i, items - i, &length_ns, error);
			heading_draw(sheet, y, label, length_ns);
			headings++;
		}
	}
	return r;
}

int demo_sheet(const char *out, char **item, int items, struct sana_error *error)
{
	struct sheet sheet = { 0 };
	cairo_status_t status;
	int rows = 0, r;

	for (int i = 0; i < items; i++)
		rows += strchr(item[i], '=') != NULL;
	if (items > MAX_ITEMS || rows == 0 || strchr(item[0], '='))
		return sana_error_set(error, -EINVAL, "sheet.items",
				      "A sheet has a heading first, a row and at most %d of both.",
				      MAX_ITEMS);
	r = sheet_init(&sheet, items - rows, rows, error);
	if (r >= 0)
		r = items_draw(&sheet, item, items, error);
	if (r >= 0) {
		status = cairo_surface_write_to_png(sheet.surface, out);
		if (status != CAIRO_STATUS_SUCCESS)
			r = sana_error_set(error, -EIO, "sheet.write", "%s: %s.", out,
					   cairo_status_to_string(status));
	}
	sheet_finish(&sheet);
	return r;
}
