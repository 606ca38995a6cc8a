#include "runtime/native/maps/process_maps.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sprat {
namespace {

constexpr char kDeleted[] = " (deleted)";

// Lines of a file, read in pieces.
class Lines {
  public:
    explicit Lines(int descriptor) : descriptor_(descriptor) {}

    // The next line without its end; false behind the last one. A longer line than fits is cut.
    bool next(char *line, size_t size) {
        size_t n = 0;
        for (char c; take(c);) {
            if (c == '\n') return line[n] = 0, true;
            if (n + 1 < size) line[n++] = c;
        }
        return false;
    }

  private:
    bool take(char &c) {
        if (at_ == end_) {
            ssize_t n;
            do n = read(descriptor_, buffer_, sizeof buffer_);
            while (n < 0 && errno == EINTR);
            if (n <= 0) return false;
            at_ = 0, end_ = size_t(n);
        }
        return c = buffer_[at_++], true;
    }

    int descriptor_;
    size_t at_ = 0, end_ = 0;
    char buffer_[4096];
};

uintptr_t hexadecimal(const char *&at) {
    uintptr_t value = 0;
    for (;; ++at) {
        if (*at >= '0' && *at <= '9') value = value * 16 + uintptr_t(*at - '0');
        else if (*at >= 'a' && *at <= 'f') value = value * 16 + uintptr_t(*at - 'a' + 10);
        else return value;
    }
}

// "begin-end perms offset device inode   path"; anonymous mappings have no path.
bool parse(const char *line, uintptr_t address, ProcessMap &found) {
    found.begin = hexadecimal(line);
    if (*line++ != '-') return false;
    found.end = hexadecimal(line);
    if (address < found.begin || address >= found.end) return false;
    const char *path = std::strchr(line, '/');
    std::strncpy(found.path, path ? path : "", sizeof found.path - 1);
    found.path[sizeof found.path - 1] = 0;
    const size_t n = std::strlen(found.path), mark = sizeof kDeleted - 1;
    if (n > mark && !std::strcmp(found.path + n - mark, kDeleted)) found.path[n - mark] = 0;
    return true;
}

}  // namespace

bool find_process_map(uintptr_t address, ProcessMap &found) {
    const int descriptor = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    Lines lines(descriptor);
    char line[PATH_MAX + 128];
    bool is_found = false;
    while (!is_found && lines.next(line, sizeof line)) is_found = parse(line, address, found);
    close(descriptor);
    return is_found;
}

}  // namespace sprat
