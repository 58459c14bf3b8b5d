/* Copies the sound of one file into another, packet by packet, without decoding it. */
#pragma once

#include "media/av.h"

struct media_audio_copy; /* one audio track of one file */

/*
 * Opens `path` and adds a stream to `to` (before its header is written). *ret stays NULL, without an
 * error, when there is no sound, or none that the container can hold: `note` then says so.
 */
int media_audio_copy_open(const char *path, AVFormatContext *to, struct media_audio_copy **ret,
			  char *note, size_t note_bytes, struct sana_error *error);

/* NULL accepted; returns NULL. */
struct media_audio_copy *media_audio_copy_close(struct media_audio_copy *copy);

/*
 * Writes the packets that start before `end_ns`. Damage in the sound ends it, never the copy:
 * negative values (libav's) come from writing.
 */
int media_audio_copy_until(struct media_audio_copy *copy, AVFormatContext *to, int64_t end_ns);
