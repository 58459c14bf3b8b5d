/*
 * Looks at the demo's contact sheet: sheet_check SHEET.png GROUPS ROWS
 *
 * Every cell is there and whole, none is black, blank or burnt out, rows of a group differ in every
 * column, and every row has a label. Prints what it measured; exits 1 when something is wrong.
 */
#include "tools/demo/demo.h"

#include <math.h>
#include <png.h>

enum { CELL_PIXELS = SHEET_CELL_WIDTH * SHEET_CELL_HEIGHT };

/*
 * Grey levels. The darkest cell of a good sheet (night) has a mean of 30, the brightest (sketch) one of
 * 224, the flattest a deviation of 14; two rows of one group are 20 apart at least.
 */
static const double darkest = 12, brightest = 243, flattest = 5, nearest = 12;

/* Of pixels that are black or white to 2 levels; the test pattern's own bars are 0.1. */
static const double most_burnt = 0.6;

struct sheet_picture {
	int width, height, failures;
	uint8_t *rgb;
};

static const uint8_t *pixel(const struct sheet_picture *sheet, int x, int y)
{
	return sheet->rgb + 3 * ((ptrdiff_t)y * sheet->width + x);
}

static void check(struct sheet_picture *sheet, bool good, const char *what, int group, int row,
		  int column, double value)
{
	if (good)
		return;
	(void)printf("FAIL  group %d row %d column %d: %s (%.2f)\n", group, row, column, what,
		     value);
	sheet->failures++;
}

static int sheet_read(const char *path, struct sheet_picture *ret)
{
	png_image image = { .version = PNG_IMAGE_VERSION };

	if (!png_image_begin_read_from_file(&image, path))
		return -1;
	image.format = PNG_FORMAT_RGB;
	ret->width = (int)image.width;
	ret->height = (int)image.height;
	ret->rgb = malloc(PNG_IMAGE_SIZE(image));
	return ret->rgb && png_image_finish_read(&image, NULL, ret->rgb, 0, NULL) ? 0 : -1;
}

static bool is_background(const uint8_t *p)
{
	return p[0] == SHEET_BACKGROUND && p[1] == SHEET_BACKGROUND && p[2] == SHEET_BACKGROUND;
}

/* Something was written into the rectangle. */
static bool is_written(const struct sheet_picture *sheet, int x0, int y0, int width, int height)
{
	for (int y = y0; y < y0 + height; y++)
		for (int x = x0; x < x0 + width; x++)
			if (!is_background(pixel(sheet, x, y)))
				return true;
	return false;
}

static void cell_check(struct sheet_picture *sheet, int group, int row, int column, int x0, int y0)
{
	double sum = 0, squares = 0, burnt = 0, frame = 0;

	for (int y = 0; y < SHEET_CELL_HEIGHT; y++)
		for (int x = 0; x < SHEET_CELL_WIDTH; x++) {
			const uint8_t *p = pixel(sheet, x0 + x, y0 + y);
			const double level = (p[0] + p[1] + p[2]) / 3.0;

			sum += level;
			squares += level * level;
			burnt += (p[0] < 3 && p[1] < 3 && p[2] < 3) ||
				 (p[0] > 252 && p[1] > 252 && p[2] > 252);
		}
	sum /= CELL_PIXELS;
	squares = sqrt(fmax(squares / CELL_PIXELS - sum * sum, 0));
	burnt /= CELL_PIXELS;
	(void)printf(" %5.1f/%4.1f/%.2f", sum, squares, burnt);
	/* The last column and the last row of pixels before the gap are picture, the gap is not. */
	for (int x = 0; x < SHEET_CELL_WIDTH; x++)
		frame += !is_background(pixel(sheet, x0 + x, y0 + SHEET_CELL_HEIGHT));
	for (int y = 0; y < SHEET_CELL_HEIGHT; y++)
		frame += !is_background(pixel(sheet, x0 + SHEET_CELL_WIDTH, y0 + y));
	check(sheet, frame == 0, "drawn over its edge", group, row, column, frame);
	check(sheet, sum > darkest, "black", group, row, column, sum);
	check(sheet, sum < brightest, "white", group, row, column, sum);
	check(sheet, squares > flattest, "blank", group, row, column, squares);
	check(sheet, burnt < most_burnt, "burnt out", group, row, column, burnt);
}

static double cells_distance(const struct sheet_picture *sheet, int x0, int ya, int yb)
{
	double sum = 0;

	for (int y = 0; y < SHEET_CELL_HEIGHT; y++)
		for (int x = 0; x < 3 * SHEET_CELL_WIDTH; x++)
			sum += abs(pixel(sheet, x0, ya + y)[x] - pixel(sheet, x0, yb + y)[x]);
	return sum / (3 * CELL_PIXELS);
}

static void rows_compare(struct sheet_picture *sheet, int group, int rows)
{
	double least = INFINITY;

	for (int a = 0; a < rows; a++)
		for (int b = a + 1; b < rows; b++)
			for (int column = 0; column < SHEET_COLUMNS; column++) {
				const double distance =
					cells_distance(sheet, sheet_cell_x(column),
						       sheet_y(group + 1, group * rows + a),
						       sheet_y(group + 1, group * rows + b));

				check(sheet, distance > nearest, "like another row", group, b,
				      column, distance);
				least = fmin(least, distance);
			}
	(void)printf("group %d: rows differ by %.1f at least\n", group, least);
}

static void group_check(struct sheet_picture *sheet, int group, int rows)
{
	const int heading = sheet_y(group, group * rows);

	check(sheet,
	      is_written(sheet, SHEET_MARGIN, heading, SHEET_LABEL_WIDTH, SHEET_HEADING_HEIGHT),
	      "no heading", group, 0, 0, 0);
	for (int row = 0; row < rows; row++) {
		const int y = sheet_y(group + 1, group * rows + row);

		check(sheet, is_written(sheet, SHEET_MARGIN, y, SHEET_LABEL_WIDTH - 4, 80),
		      "no label", group, row, 0, 0);
		(void)printf("group %d row %d:", group, row);
		for (int column = 0; column < SHEET_COLUMNS; column++)
			cell_check(sheet, group, row, column, sheet_cell_x(column), y);
		(void)printf("  mean/deviation/burnt\n");
	}
	rows_compare(sheet, group, rows);
}

int main(int count, char **arguments)
{
	struct sheet_picture sheet = { 0 };
	int groups, rows;

	if (count != 4)
		return 2;
	groups = atoi(arguments[2]);
	rows = atoi(arguments[3]);
	if (sheet_read(arguments[1], &sheet) < 0) {
		(void)printf("FAIL  %s cannot be read\n", arguments[1]);
		return 1;
	}
	if (sheet.width == SHEET_WIDTH &&
	    sheet.height == sheet_y(groups, groups * rows) + SHEET_MARGIN) {
		for (int group = 0; group < groups; group++)
			group_check(&sheet, group, rows);
	} else {
		(void)printf("FAIL  %dx%d pixels\n", sheet.width, sheet.height);
		sheet.failures++;
	}
	free(sheet.rgb);
	return sheet.failures ? 1 : 0;
}
