/* A shim for LD_PRELOAD: the n-th call that changes something below one folder is killed, fails or is short.

   fault_arm(root, n, action) starts to count; action is 'k' (SIGKILL before the call), 'i' (EIO), 's' (ENOSPC) or
   'h' (half of a write). fault_count() says how many calls were counted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_bytes;
static atomic_long seen, wanted = -1;
static char action;

void fault_arm(const char *folder, long n, char what) {
    root_bytes = (size_t)snprintf(root, sizeof root, "%s", folder);
    action = what;
    seen = 0;
    wanted = n;
}

long fault_count(void) { return seen; }

static int below(const char *path) { return strncmp(path, root, root_bytes) == 0; }

static int is_inside(int fd, const char *path) {
    char link[64], found[PATH_MAX];
    if (wanted < 0) return 0;
    if (path != NULL && path[0] == '/') return below(path);
    if (fd == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, found, sizeof found - 1);
    if (n < 0) return 0;
    found[n] = 0;
    return below(found);
}

/* Whether this call is the one: 0 no, 1 it fails with errno set, 2 it is to be short. */
static int hit(int fd, const char *path, int is_write) {
    if (!is_inside(fd, path) || atomic_fetch_add(&seen, 1) != wanted) return 0;
    switch (action) {
    case 'k': kill(getpid(), SIGKILL); return 0;
    case 'h': return is_write ? 2 : 0;
    case 's': errno = ENOSPC; return 1;
    default: errno = EIO; return 1;
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t n) {
    int found = hit(fd, NULL, 1);
    return found == 1 ? -1 : REAL(write)(fd, data, found == 2 && n > 1 ? n / 2 : n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    int found = hit(fd, NULL, 1);
    return found == 1 ? -1 : REAL(pwrite64)(fd, data, found == 2 && n > 1 ? n / 2 : n, at);
}

int fsync(int fd) { return hit(fd, NULL, 0) == 1 ? -1 : REAL(fsync)(fd); }
int ftruncate64(int fd, off64_t n) { return hit(fd, NULL, 0) == 1 ? -1 : REAL(ftruncate64)(fd, n); }
int rename(const char *from, const char *to) { return hit(AT_FDCWD, from, 0) == 1 ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return hit(AT_FDCWD, path, 0) == 1 ? -1 : REAL(mkdir)(path, mode); }
int rmdir(const char *path) { return hit(AT_FDCWD, path, 0) == 1 ? -1 : REAL(rmdir)(path); }
int unlink(const char *path) { return hit(AT_FDCWD, path, 0) == 1 ? -1 : REAL(unlink)(path); }

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return hit(a, from, 0) == 1 ? -1 : REAL(renameat2)(a, from, b, to, flags);
}

int mkdirat(int fd, const char *path, mode_t mode) { return hit(fd, path, 0) == 1 ? -1 : REAL(mkdirat)(fd, path, mode); }
int unlinkat(int fd, const char *path, int flags) { return hit(fd, path, 0) == 1 ? -1 : REAL(unlinkat)(fd, path, flags); }

static int creates(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name, head, fd, call)                                                                                     \
    int name head {                                                                                                    \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = creates(flags) ? va_arg(rest, mode_t) : 0;                                                       \
        va_end(rest);                                                                                                  \
        if (creates(flags) && hit(fd, path, 0) == 1) return -1;                                                        \
        return REAL(name) call;                                                                                        \
    }

OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat64, (int fd, const char *path, int flags, ...), fd, (fd, path, flags, mode))
