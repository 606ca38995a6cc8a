// Guarded maps: a page of a mapped file that cannot be read any more ends no process.
//
// When a file is truncated while it is mapped, or its storage fails, a read of a lost page raises
// SIGBUS, which kills by default. For a guarded map the handler puts pages of zeros in the place of
// the lost ones, marks the guard, and the read goes on; whoever reads the map asks has_failed()
// afterwards and throws the results away. Nothing is unwound, since kernels hold locks and run in
// many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace sprat {

class MapGuard {
  public:
    // Guards n_bytes from `data` on, which are mapped read-only.
    MapGuard(const void *data, size_t n_bytes);
    // Guards whatever maps of the file at `path` this process has at the time of the fault: for
    // libraries that map files by themselves. Looked up in /proc/self/maps.
    explicit MapGuard(const std::string &path);
    ~MapGuard();
    MapGuard(const MapGuard &) = delete;
    MapGuard &operator=(const MapGuard &) = delete;

    // Whether a page was lost since the guard was made.
    bool has_failed() const;

    struct Entry;

  private:
    Entry *entry_;
};

// Puts the handler before those that were installed meanwhile (faulthandler, another library); they
// are called for all other addresses.
void install_bus_handler();

}  // namespace sprat
