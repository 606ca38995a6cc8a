// Checks of arguments: a wrong shape is a Python ValueError, never a read outside a buffer.
#pragma once

#include <stdexcept>

namespace sprat {

inline void expect(bool condition, const char *what) {
    if (!condition) throw std::invalid_argument(what);
}

}  // namespace sprat
