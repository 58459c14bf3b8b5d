/*
 * Names of devices. An identity is a string, everywhere: configuration, bus, lists, logs. It says which
 * device is meant by what stays the same, never by a number that the kernel gave out.
 *
 *	sources	v4l2:by-id/NAME		a link of /dev/v4l/by-id
 *		v4l2:by-path/NAME	a link of /dev/v4l/by-path
 *		v4l2:card=NAME		the card name that the driver tells
 *		file:/PATH		a video file (no pipe), from the start again at its end
 *		pattern:		moving colour bars
 *	sinks	loopback:label=NAME	a virtual camera by its card label
 *		loopback:		the first node of the v4l2loopback driver
 *		kms:CONNECTOR		a display: "kms:HDMI-A-1"
 *		kms:			the first connected one
 *		file:/PATH.EXT		.mp4, .y4m, … (media/sink.h)
 *
 * Every kind opens by a function of the form of media_source_open or media_sink_open, with the
 * identity in wish->path, and lists what is there by one of the form of media_list_function.
 */
#pragma once

#include <stdbool.h>

struct media_device {
	char identity[256];
	char description[256]; /* for a person */
	bool present;	       /* could be opened now */
};

/* Fills up to `capacity`; returns how many there are. */
typedef int (*media_list_function)(struct media_device *ret, int capacity);
