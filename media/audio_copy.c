/* Copies the sound of one file into another. */
#include "media/audio_copy.h"

#include "base/file.h"
#include "base/util.h"

#include <errno.h>
#include <libavcodec/avcodec.h>
#include <sys/stat.h>

static const AVRational NANOSECOND = { 1, 1000000000 };

struct media_audio_copy {
	struct media_input input;
	const AVStream *from;
	AVStream *to;
	AVPacket *packet;
	int64_t origin; /* the file's start, in units of `from` */
	bool loaded;	/* packet waits for its time */
	bool ended;
};

struct media_audio_copy *media_audio_copy_close(struct media_audio_copy *copy)
{
	if (copy) {
		av_packet_free(&copy->packet);
		media_input_close(&copy->input);
		free(copy);
	}
	return NULL;
}

static bool container_takes(const AVFormatContext *to, enum AVCodecID codec)
{
	return avformat_query_codec(to->oformat, codec, FF_COMPLIANCE_NORMAL) == 1;
}

static int stream_add(struct media_audio_copy *copy, AVFormatContext *to)
{
	int r;

	copy->to = avformat_new_stream(to, NULL);
	copy->packet = av_packet_alloc();
	if (!copy->to || !copy->packet)
		return AVERROR(ENOMEM);
	r = avcodec_parameters_copy(copy->to->codecpar, copy->from->codecpar);
	if (r < 0)
		return r;
	copy->to->codecpar->codec_tag = 0; /* the new container has tags of its own */
	copy->to->time_base = copy->from->time_base;
	copy->to->disposition = copy->from->disposition;
	return av_dict_copy(&copy->to->metadata, copy->from->metadata, 0);
}

int media_audio_copy_open(const char *path, AVFormatContext *to, struct media_audio_copy **ret,
			  char *note, size_t note_bytes, struct sana_error *error)
{
	const struct media_input_wish wish = { .path = path };
	struct media_audio_copy *copy;
	struct stat status;
	int r;

	if (stat(path, &status) == 0 && S_ISFIFO(status.st_mode)) {
		(void)snprintf(note, note_bytes,
			       "A pipe cannot be read twice: its sound is left out.");
		return 0;
	}
	copy = calloc(1, sizeof(*copy));
	if (!copy)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	r = media_input_open(&wish, &copy->input, error);
	if (r < 0)
		goto close;
	r = av_find_best_stream(copy->input.format, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0);
	if (r < 0) {
		r = 0;
		goto close;
	}
	copy->from = copy->input.format->streams[r];
	r = 0;
	if (!container_takes(to, copy->from->codecpar->codec_id)) {
		(void)snprintf(note, note_bytes,
			       "The sound (%s) has no place in a %s file and is left out.",
			       avcodec_get_name(copy->from->codecpar->codec_id), to->oformat->name);
		goto close;
	}
	for (unsigned int i = 0; i < copy->input.format->nb_streams; i++)
		if (copy->input.format->streams[i] != copy->from)
			copy->input.format->streams[i]->discard = AVDISCARD_ALL;
	copy->origin = media_input_origin(&copy->input, copy->from);
	r = stream_add(copy, to);
	if (r < 0) {
		r = media_av_fail(error, r, "sink.open", path, "its sound cannot be copied");
		goto close;
	}
	*ret = copy;
	return 0;

close:
	(void)media_audio_copy_close(copy);
	return r;
}

/* Fills the packet with the next one of the track. */
static bool packet_load(struct media_audio_copy *copy)
{
	while (!copy->loaded && !copy->ended) {
		if (av_read_frame(copy->input.format, copy->packet) < 0)
			copy->ended = true;
		else if (copy->packet->stream_index == copy->from->index)
			copy->loaded = true;
		else
			av_packet_unref(copy->packet);
	}
	return copy->loaded;
}

int media_audio_copy_until(struct media_audio_copy *copy, AVFormatContext *to, int64_t end_ns)
{
	AVPacket *packet = copy->packet;
	int64_t at;
	int r;

	while (packet_load(copy)) {
		at = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
		if (at != AV_NOPTS_VALUE && av_compare_ts(at - copy->origin, copy->from->time_base,
							  end_ns, NANOSECOND) >= 0)
			return 0;
		if (packet->pts != AV_NOPTS_VALUE)
			packet->pts -= copy->origin;
		if (packet->dts != AV_NOPTS_VALUE)
			packet->dts -= copy->origin;
		av_packet_rescale_ts(packet, copy->from->time_base, copy->to->time_base);
		packet->stream_index = copy->to->index;
		packet->pos = -1;
		copy->loaded = false;
		r = av_interleaved_write_frame(to, packet);
		av_packet_unref(packet);
		if (r < 0)
			return r;
	}
	return 0;
}
