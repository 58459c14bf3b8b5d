/* Where a program may keep what it can always make again. */
#pragma once

#include <stddef.h>

/*
 * $CACHE_DIRECTORY (the service manager's, its first), else $XDG_CACHE_HOME/sana-streamd, else
 * $HOME/.cache/sana-streamd; it need not exist. −ENOENT: the environment names none; −ENAMETOOLONG.
 */
int cache_directory(char *ret, size_t bytes);
