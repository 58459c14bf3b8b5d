/*
 * What a process that makes room for another one leaves to it: the back end it had. "auto" then waits for that
 * one, as the process itself did, instead of taking a CPU for good because a GPU is still being reset. A file in
 * the service's runtime directory, which outlives a restart and no stop.
 *
 * Directory NULL: nothing is kept.
 */
#pragma once

#include <stdbool.h>

enum { MAIN_AGAIN_BYTES = 32 };

int main_again_note(const char *directory, const char *backend);

/* False: there is none. It stays until it is forgotten: the next attempt may end early, too. */
bool main_again_read(const char *directory, char ret_backend[MAIN_AGAIN_BYTES]);
void main_again_forget(const char *directory);
