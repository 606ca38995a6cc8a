#include "runtime/native/maps/guard.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <mutex>
#include <new>

#include "runtime/native/maps/process_maps.hpp"

namespace sprat {

// One guard, in a list that only grows, so that the handler walks it without a lock; entries are
// used again.
struct MapGuard::Entry {
    std::atomic<bool> used{false}, failed{false};
    std::atomic<uintptr_t> begin{0}, end{0};  // empty where the file is looked up by path
    char path[PATH_MAX];
    Entry *next = nullptr;

    bool covers(uintptr_t address) const { return begin.load() <= address && address < end.load(); }
};

namespace {

std::atomic<MapGuard::Entry *> all{nullptr};
std::mutex changing;
struct sigaction previous;
// The thread that passed a fault on. A handler that gives up then raises the signal there, after it
// installed its own previous handler, which may be this one: faulthandler does. No thread_local:
// its first use may allocate.
std::atomic<long> passed_fault_on{0};

// A thread that held the lock does not exist in a forked child.
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { new (&changing) std::mutex; });

uintptr_t page_start(uintptr_t address) { return address & ~uintptr_t(sysconf(_SC_PAGESIZE) - 1); }

// Everything from the lost page to the end of the map: one fault, and not one for each page.
bool replace_by_zeros(uintptr_t begin, uintptr_t end, int protection) {
    return mmap(reinterpret_cast<void *>(begin), end - begin, protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

MapGuard::Entry *find_by_address(uintptr_t address) {
    for (MapGuard::Entry *entry = all.load(); entry; entry = entry->next)
        if (entry->used.load() && entry->covers(address)) return entry;
    return nullptr;
}

// Marks all guards of a file; whether there is one.
bool fail_by_path(const char *path) {
    bool is_guarded = false;
    for (MapGuard::Entry *entry = all.load(); entry; entry = entry->next)
        if (entry->used.load() && *entry->path && !std::strcmp(entry->path, path))
            entry->failed.store(true), is_guarded = true;
    return is_guarded;
}

bool some_file_failed() {
    for (MapGuard::Entry *entry = all.load(); entry; entry = entry->next)
        if (entry->used.load() && *entry->path && entry->failed.load()) return true;
    return false;
}

bool recover(uintptr_t address) {
    if (MapGuard::Entry *entry = find_by_address(address)) {
        entry->failed.store(true);
        return replace_by_zeros(page_start(address), entry->end.load(), PROT_READ);
    }
    ProcessMap map;
    if (!find_process_map(address, map)) return false;
    if (!*map.path) return some_file_failed();  // another thread was faster: there are zeros
    if (!fail_by_path(map.path)) return false;
    return replace_by_zeros(page_start(address), map.end, PROT_READ | PROT_WRITE);
}

void pass_on(int signal, siginfo_t *info, void *context) {
    const bool is_fault = info->si_code > 0;
    const long thread = syscall(SYS_gettid);
    const bool is_default =
        !(previous.sa_flags & SA_SIGINFO) &&
        (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN);
    if (is_default || (!is_fault && passed_fault_on.load() == thread)) {
        // The read fails once more, and that ends the process; a sent signal is sent again.
        struct sigaction fatal{};
        fatal.sa_handler = SIG_DFL;
        sigaction(signal, &fatal, nullptr);
        if (!is_fault) raise(signal);
        return;
    }
    if (is_fault) passed_fault_on.store(thread);
    if (previous.sa_flags & SA_SIGINFO) previous.sa_sigaction(signal, info, context);
    else previous.sa_handler(signal);
}

// si_code is positive for faults; a signal that a process sent has no address.
void on_bus_error(int signal, siginfo_t *info, void *context) {
    const int before = errno;
    if (info->si_code <= 0 || !recover(reinterpret_cast<uintptr_t>(info->si_addr)))
        pass_on(signal, info, context);
    errno = before;
}

MapGuard::Entry *take_entry() {
    for (MapGuard::Entry *entry = all.load(); entry; entry = entry->next)
        if (!entry->used.load()) return entry;
    auto *entry = new MapGuard::Entry;
    entry->next = all.load();
    all.store(entry);
    return entry;
}

MapGuard::Entry *add(uintptr_t begin, uintptr_t end, const std::string &path) {
    install_bus_handler();
    const std::lock_guard lock(changing);
    MapGuard::Entry *entry = take_entry();
    entry->begin.store(begin), entry->end.store(end);
    std::strncpy(entry->path, path.c_str(), sizeof entry->path - 1);
    entry->path[sizeof entry->path - 1] = 0;
    entry->failed.store(false);
    entry->used.store(true);
    return entry;
}

}  // namespace

void install_bus_handler() {
    const std::lock_guard lock(changing);
    struct sigaction now{};
    sigaction(SIGBUS, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error) return;
    previous = now;
    struct sigaction own{};
    own.sa_sigaction = on_bus_error;
    own.sa_flags = SA_SIGINFO;  // on the stack of the thread, which is not what overflowed
    sigemptyset(&own.sa_mask);
    sigaction(SIGBUS, &own, nullptr);
}

MapGuard::MapGuard(const void *data, size_t n_bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(data);
    const auto page = uintptr_t(sysconf(_SC_PAGESIZE));
    entry_ = add(begin, (begin + n_bytes + page - 1) / page * page, "");
}

MapGuard::MapGuard(const std::string &path) : entry_(add(0, 0, path)) {}

MapGuard::~MapGuard() {
    const std::lock_guard lock(changing);
    entry_->used.store(false);
}

bool MapGuard::has_failed() const { return entry_->failed.load(); }

}  // namespace sprat
