/* MJPEG pictures to planes. */
#include "daemon/source_v4l2_jpeg.h"

#include "base/util.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <turbojpeg.h>

enum {
	ALIGN = 64,
	MCU = 32, /* the widest unit of a JPEG, 4:1:1 */
	JPEG_MARK = 0xff,
	JPEG_START = 0xd8,
	JPEG_END = 0xd9,
};

int source_v4l2_jpeg_init(struct source_v4l2_jpeg *jpeg, int width, int height)
{
	const size_t row = align_up((size_t)width + MCU, ALIGN);
	const size_t bytes = row * align_up((size_t)height, MCU);

	*jpeg = (struct source_v4l2_jpeg){
		.decoder = tjInitDecompress(),
		.width = width,
		.height = height,
		.row_bytes = (int)row,
	};
	for (int i = 0; i < 3; i++)
		jpeg->plane[i] = aligned_alloc(ALIGN, bytes);
	if (jpeg->decoder && jpeg->plane[0] && jpeg->plane[1] && jpeg->plane[2])
		return 0;
	source_v4l2_jpeg_finish(jpeg);
	return -ENOMEM;
}

void source_v4l2_jpeg_finish(struct source_v4l2_jpeg *jpeg)
{
	if (jpeg->decoder)
		(void)tjDestroy(jpeg->decoder);
	for (int i = 0; i < 3; i++)
		free(jpeg->plane[i]);
	*jpeg = (struct source_v4l2_jpeg){ 0 };
}

/*
 * Cameras pad the buffer behind the picture, with whatever is there. Without an end marker it was cut off;
 * but some never send one, so that counts only once the camera has. The first half may hold a thumbnail's.
 */
static bool is_whole(struct source_v4l2_jpeg *jpeg, const uint8_t *data, size_t bytes)
{
	if (bytes < 4 || data[0] != JPEG_MARK || data[1] != JPEG_START)
		return false;
	for (size_t i = bytes - 1; i > bytes / 2; i--)
		if (data[i] == JPEG_END && data[i - 1] == JPEG_MARK) {
			jpeg->has_end = true;
			return true;
		}
	return !jpeg->has_end;
}

static int format_of(int subsampling)
{
	switch (subsampling) {
	case TJSAMP_444:
		return AV_PIX_FMT_YUV444P;
	case TJSAMP_422:
		return AV_PIX_FMT_YUV422P;
	case TJSAMP_420:
		return AV_PIX_FMT_YUV420P;
	case TJSAMP_440:
		return AV_PIX_FMT_YUV440P;
	case TJSAMP_411:
		return AV_PIX_FMT_YUV411P;
	case TJSAMP_GRAY:
		return AV_PIX_FMT_GRAY8;
	}
	return AV_PIX_FMT_NONE;
}

/*
 * After a header that cannot be read the decoder (2.1) goes on where it stopped, in the next picture,
 * for ever: a new one is the only way to make it forget.
 */
static int damaged(struct source_v4l2_jpeg *jpeg, struct sana_error *error)
{
	(void)sana_error_set(error, -EBADMSG, "source.damaged",
			     "A JPEG picture is damaged: %.200s.", tjGetErrorStr2(jpeg->decoder));
	(void)tjDestroy(jpeg->decoder);
	jpeg->decoder = tjInitDecompress();
	return -EBADMSG;
}

int source_v4l2_jpeg_decode(struct source_v4l2_jpeg *jpeg, const uint8_t *data, size_t bytes,
			    struct media_picture *ret, struct sana_error *error)
{
	int strides[3] = { jpeg->row_bytes, jpeg->row_bytes, jpeg->row_bytes };
	int width, height, subsampling, colours, format;

	if (!jpeg->decoder)
		jpeg->decoder = tjInitDecompress();
	if (!jpeg->decoder)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	if (!is_whole(jpeg, data, bytes))
		return sana_error_set(error, -EBADMSG, "source.damaged",
				      "A JPEG picture of %zu bytes is cut off.", bytes);
	if (tjDecompressHeader3(jpeg->decoder, data, (unsigned long)bytes, &width, &height,
				&subsampling, &colours) < 0)
		return damaged(jpeg, error);
	format = format_of(subsampling);
	if (width != jpeg->width || height != jpeg->height || format == AV_PIX_FMT_NONE ||
	    (colours != TJCS_YCbCr && colours != TJCS_GRAY))
		return sana_error_set(error, -EBADMSG, "source.damaged",
				      "A JPEG picture is %dx%d (kind %d, colours %d) and not the "
				      "%dx%d that was set.",
				      width, height, subsampling, colours, jpeg->width,
				      jpeg->height);
	/* A warning is a picture with a blemish, which is what other programs show, too. */
	if (tjDecompressToYUVPlanes(jpeg->decoder, data, (unsigned long)bytes, jpeg->plane, width,
				    strides, height, TJFLAG_LIMITSCANS) < 0 &&
	    tjGetErrorCode(jpeg->decoder) != TJERR_WARNING)
		return damaged(jpeg, error);
	for (int i = 0; i < 3; i++) {
		ret->plane[i] = format == AV_PIX_FMT_GRAY8 && i ? NULL : jpeg->plane[i];
		ret->row_bytes[i] = jpeg->row_bytes;
	}
	ret->format = format;
	ret->siting = MEDIA_SITING_CENTRE;
	return 0;
}
