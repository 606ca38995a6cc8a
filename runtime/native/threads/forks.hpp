// Whether this process was forked from the one that made an object.
#pragma once

namespace sprat {

// How many forks lie between the process that loaded the core and this one. Counted by
// pthread_atfork, so that asking costs a load.
unsigned forks_so_far();

}  // namespace sprat
