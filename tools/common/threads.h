/* What every tool that runs the engine does first. */
#pragma once

/*
 * OpenMP's threads shall wait for each other asleep. libgomp's spin at every barrier unless
 * OMP_WAIT_POLICY says otherwise, and as soon as another program wants a core, a spinning thread takes
 * the time that the one it waits for would need: with eight busy processes on two cores a stream fell
 * to a fifth of what sleeping threads reach (docs/speed-log.md). The library reads the variable when it
 * is loaded and has no call for it, so the program starts itself once more with it set. What the user
 * has set stays; where that start fails, the program goes on as it is.
 */
void tool_threads_sleep(char **arguments);
