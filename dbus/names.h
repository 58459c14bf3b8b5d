/* The names on the bus. Everything that speaks of them takes them from here. */
#pragma once

#define BUS_NAME "org.sana.Stream1" /* instances: BUS_NAME "." NAME */
#define BUS_INTERFACE "org.sana.Stream1"
#define BUS_PATH "/org/sana/Stream1"
#define BUS_ERROR BUS_INTERFACE ".Error." /* RateLimited, NotAuthorized, Unsupported, … */
#define BUS_ACTION_CONTROL BUS_INTERFACE ".control"
#define BUS_ACTION_SNAPSHOT BUS_INTERFACE ".snapshot"
