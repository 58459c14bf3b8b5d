/*
 * What an edited picture looks like beside its source, and whether that is what a prompt of the demo
 * model asks for: the exact edits, their PSNR, and one criterion per edit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum edit_kind {
	EDIT_INVALID = -1,
	EDIT_GRAYSCALE,
	EDIT_INVERT,
	EDIT_SEPIA,
	EDIT_NIGHT,
	EDIT_SKETCH,
	EDIT_SWAP,
	EDIT_GOLD,
	EDIT_KEEP,
	EDIT_COUNT
};

const char *edit_name(enum edit_kind kind);
enum edit_kind edit_from_name(const char *name);

/*
 * The edit of `pixels` R'G'B' pixels as formulas. False for the sketch, which has none.
 */
bool edit_exact(enum edit_kind kind, const uint8_t *source, size_t pixels, uint8_t *ret);

/* In dB against the exact edit; NaN for the sketch. */
double edit_psnr(enum edit_kind kind, const uint8_t *source, const uint8_t *edited, size_t pixels);

/* Grey levels are 0 … 255; luma is Rec. 709; "warmth" is red − blue of a pixel. */
struct edit_look {
	double luma_correlation; /* of edited and source pixels */
	double luma_mean, luma_source_mean;
	double chroma; /* mean distance of a channel from its pixel's luma */
	double chroma_source;
	double warmth_mean, warmth_source_mean;
	double warmth_slope;			/* least squares: edited warmth per source warmth */
	double red_over_green, green_over_blue; /* differences of the means */
	double edge_correlation;		/* of darkness and the source's gradient */
	double psnr[EDIT_COUNT];
};

/* Over `frames` pictures of width x height, one after another. */
void edit_look_measure(const uint8_t *source, const uint8_t *edited, int frames, int width,
		       int height, struct edit_look *ret);

/* Is this what the prompt of `kind` asks for? */
bool edit_look_is(enum edit_kind kind, const struct edit_look *look);

/* Decibels that the model's README gives for its own first chunk ("first chunk"), averaged. */
double edit_readme_psnr(enum edit_kind kind);
