/* Log messages to the journal, with their fields. */
#pragma once

#include <stdbool.h>

/* Where standard error is the journal's: from now on messages go there with their fields. */
bool main_journal_use(void);
