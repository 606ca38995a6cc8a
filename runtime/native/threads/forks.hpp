// Whether this process was forked from the one that made an object.
#pragma once

namespace sprat {

// Number of forks between the process that loaded the core and this one, counted by
// pthread_atfork: a call costs a load.
unsigned forks_so_far();

}  // namespace sprat
