/* Inside of the demo's helper: a camera to a file, and a contact sheet of clips. */
#pragma once

#include "base/error.h"

/* Copies `seconds` of a source at its own size and times. */
int demo_record(const char *source, const char *out, int seconds, struct sana_error *error);

/* From the first picture of a clip to its last, at most `limit_ns`; more is not read. */
int demo_length(const char *path, int64_t limit_ns, int64_t *ret_length_ns,
		struct sana_error *error);

/*
 * Where things are on a sheet, in pixels. A sheet is a column of groups; a group is a heading with the
 * times of its columns, then one row per clip: a label and SHEET_COLUMNS cells.
 */
enum {
	SHEET_COLUMNS = 6,
	SHEET_CELL_WIDTH = 256,
	SHEET_CELL_HEIGHT = 144,
	SHEET_GAP = 6,
	SHEET_MARGIN = 18,
	SHEET_LABEL_WIDTH = 190,
	SHEET_HEADING_HEIGHT = 52,
	SHEET_ROW_HEIGHT = SHEET_CELL_HEIGHT + SHEET_GAP,
	SHEET_CELLS_X = SHEET_MARGIN + SHEET_LABEL_WIDTH,
	SHEET_WIDTH = SHEET_CELLS_X + SHEET_COLUMNS * (SHEET_CELL_WIDTH + SHEET_GAP) +
		      SHEET_MARGIN - SHEET_GAP,
	SHEET_BACKGROUND = 0x1c, /* grey level */
};

static inline int sheet_cell_x(int column)
{
	return SHEET_CELLS_X + column * (SHEET_CELL_WIDTH + SHEET_GAP);
}

/* Upper edge of a row, `headings` headings and `rows` rows below the top. */
static inline int sheet_y(int headings, int rows)
{
	return SHEET_MARGIN + headings * SHEET_HEADING_HEIGHT + rows * SHEET_ROW_HEIGHT;
}

/*
 * `item` is "TITLE" for a group, "LABEL=FILE" for a row of the group before it. The cells of a group
 * show its clips at the same times, evenly over the shortest of them.
 */
int demo_sheet(const char *out, char **item, int items, struct sana_error *error);
