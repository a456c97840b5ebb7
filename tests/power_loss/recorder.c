/* Preloaded into a process, it appends to the file $PBFT_RECORD_TO every call that changes a file
 * or directory below $PBFT_RECORD_UNDER, or makes it durable, in the order in which they return.
 * Processes that this one starts are not recorded: they examine files, and change none.
 *
 * Each record: kind (1 byte), fd (int32), number (int64), length (uint32), then so many bytes;
 * the kinds are explained in recording.py. A call that the replay does not know is recorded as
 * unsupported, and makes the replay fail rather than be wrong.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 4096
#define CREATED (1LL << 40)

static int record = -1;
static pid_t owner;
static const char *under;
static char tracked[MAX_FDS];
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

struct __attribute__((packed)) header {
    uint8_t kind;
    int32_t fd;
    int64_t number;
    uint32_t length;
};

static void put(const void *bytes, size_t count) {
    const char *at = bytes;
    while (count > 0) {
        long done = syscall(SYS_write, record, at, count);
        if (done <= 0) abort();
        at += done;
        count -= (size_t)done;
    }
}

static void note(char kind, int fd, int64_t number, const void *bytes, size_t count) {
    struct header header = {(uint8_t)kind, fd, number, (uint32_t)count};
    put(&header, sizeof header);
    put(bytes, count);
}

static int below(const char *path) {
    if (under == NULL || path == NULL || getpid() != owner) return 0;
    size_t length = strlen(under);
    return strncmp(path, under, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* A child that is about to start another program has the same memory still. */
static int known(int fd) {
    return fd >= 0 && fd < MAX_FDS && tracked[fd] && getpid() == owner;
}

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("PBFT_RECORD_TO");
    const char *prefix = getenv("PBFT_RECORD_UNDER");
    if (to == NULL || prefix == NULL) return;
    record = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) abort();
    under = prefix;
    owner = getpid();
    unsetenv("LD_PRELOAD");
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define LOCK() pthread_mutex_lock(&order)
#define UNLOCK() pthread_mutex_unlock(&order)

static int opened(int dir, const char *path, int flags, mode_t mode) {
    if (!below(path)) return (int)syscall(SYS_openat, dir, path, flags, mode);
    LOCK();
    int existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= MAX_FDS) abort();
    if (fd >= 0) {
        tracked[fd] = 1;
        note('O', fd, flags | (existed ? 0 : CREATED), path, strlen(path));
    }
    UNLOCK();
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name, large)                                  \
    int name(const char *path, int flags, ...) {           \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode_t mode = mode_of(flags, rest);                \
        va_end(rest);                                      \
        return opened(AT_FDCWD, path, flags | large, mode);\
    }
#define OPENAT(name, large)                                \
    int name(int dir, const char *path, int flags, ...) {  \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode_t mode = mode_of(flags, rest);                \
        va_end(rest);                                      \
        return opened(dir, path, flags | large, mode);     \
    }
OPEN(open, 0)
OPEN(open64, 0)
OPENAT(openat, 0)
OPENAT(openat64, 0)

int close(int fd) {
    LOCK();
    if (known(fd)) {
        tracked[fd] = 0;
        note('C', fd, 0, "", 0);
    }
    UNLOCK();
    return REAL(close)(fd);
}

/* Where the next write to `fd` goes. */
static off_t position(int fd) {
    if (fcntl(fd, F_GETFL) & O_APPEND) {
        struct stat found;
        return fstat(fd, &found) == 0 ? found.st_size : -1;
    }
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!known(fd)) return REAL(write)(fd, bytes, count);
    LOCK();
    off_t at = position(fd);
    ssize_t done = REAL(write)(fd, bytes, count);
    if (done > 0) note('W', fd, at, bytes, (size_t)done);
    UNLOCK();
    return done;
}

static void note_vector(int fd, off_t at, const struct iovec *parts, ssize_t done) {
    struct header header = {'W', fd, at, (uint32_t)done};
    if (done <= 0) return;
    put(&header, sizeof header);
    for (; done > 0; parts++) {
        size_t count = parts->iov_len < (size_t)done ? parts->iov_len : (size_t)done;
        put(parts->iov_base, count);
        done -= (ssize_t)count;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!known(fd)) return REAL(writev)(fd, parts, count);
    LOCK();
    off_t at = position(fd);
    ssize_t done = REAL(writev)(fd, parts, count);
    note_vector(fd, at, parts, done);
    UNLOCK();
    return done;
}

#define PWRITE(name)                                                    \
    ssize_t name(int fd, const void *bytes, size_t count, off_t at) {   \
        if (!known(fd)) return REAL(name)(fd, bytes, count, at);        \
        LOCK();                                                         \
        ssize_t done = REAL(name)(fd, bytes, count, at);                \
        if (done > 0) note('W', fd, at, bytes, (size_t)done);           \
        UNLOCK();                                                       \
        return done;                                                    \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name)                                                   \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at) { \
        if (!known(fd)) return REAL(name)(fd, parts, count, at);        \
        LOCK();                                                         \
        ssize_t done = REAL(name)(fd, parts, count, at);                \
        note_vector(fd, at, parts, done);                               \
        UNLOCK();                                                       \
        return done;                                                    \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define TRUNCATE(name)                                                  \
    int name(int fd, off_t size) {                                      \
        if (!known(fd)) return REAL(name)(fd, size);                    \
        LOCK();                                                         \
        int failed = REAL(name)(fd, size);                              \
        if (!failed) note('T', fd, size, "", 0);                        \
        UNLOCK();                                                       \
        return failed;                                                  \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name)                                                      \
    int name(int fd) {                                                  \
        if (!known(fd)) return REAL(name)(fd);                          \
        LOCK();                                                         \
        int failed = REAL(name)(fd);                                    \
        if (!failed) note('S', fd, 0, "", 0);                           \
        UNLOCK();                                                       \
        return failed;                                                  \
    }
SYNC(fsync)
SYNC(fdatasync)

#define MMAP(name)                                                                     \
    void *name(void *at, size_t size, int protection, int flags, int fd, off_t offset) { \
        if (known(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) {          \
            LOCK();                                                                    \
            note('M', fd, 0, "", 0);                                                   \
            UNLOCK();                                                                  \
        }                                                                              \
        return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);     \
    }
MMAP(mmap)
MMAP(mmap64)

#define PATH(name, kind, parameters, arguments)                         \
    int name parameters {                                               \
        if (!below(path)) return REAL(name) arguments;                  \
        LOCK();                                                         \
        int failed = REAL(name) arguments;                              \
        if (!failed) note(kind, -1, 0, path, strlen(path));             \
        UNLOCK();                                                       \
        return failed;                                                  \
    }
PATH(mkdir, 'D', (const char *path, mode_t mode), (path, mode))
PATH(unlink, 'U', (const char *path), (path))
PATH(rmdir, 'U', (const char *path), (path))

/* With the path of an open directory before it, where there is one. */
static int absolute(int dir, const char *path, char *found, size_t size) {
    char link[64];
    if (path[0] == '/' || dir == AT_FDCWD) return snprintf(found, size, "%s", path) < (int)size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, found, size);
    if (length < 0 || (size_t)length >= size) return 0;
    return snprintf(found + length, size - length, "/%s", path) < (int)(size - length);
}

int unlinkat(int dir, const char *path, int flags) {
    char found[4096];
    if (!absolute(dir, path, found, sizeof found)) abort();
    if (!below(found)) return REAL(unlinkat)(dir, path, flags);
    LOCK();
    int failed = REAL(unlinkat)(dir, path, flags);
    if (!failed) note('U', -1, 0, found, strlen(found));
    UNLOCK();
    return failed;
}

static void unsupported(const char *name) {
    LOCK();
    note('X', -1, 0, name, strlen(name));
    UNLOCK();
}

#define PATH_UNSUPPORTED(name, parameters, arguments)                   \
    int name parameters {                                               \
        if (below(path)) unsupported(#name);                            \
        return REAL(name) arguments;                                    \
    }
PATH_UNSUPPORTED(rename, (const char *path, const char *to), (path, to))
PATH_UNSUPPORTED(link, (const char *path, const char *to), (path, to))
PATH_UNSUPPORTED(truncate, (const char *path, off_t size), (path, size))

#define FD_UNSUPPORTED(name, parameters, arguments)                     \
    int name parameters {                                               \
        if (known(fd)) unsupported(#name);                              \
        return REAL(name) arguments;                                    \
    }
FD_UNSUPPORTED(dup, (int fd), (fd))
FD_UNSUPPORTED(dup2, (int fd, int to), (fd, to))
FD_UNSUPPORTED(fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
FD_UNSUPPORTED(posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size))
FD_UNSUPPORTED(sync_file_range, (int fd, off_t at, off_t size, unsigned flags),
               (fd, at, size, flags))

int msync(void *at, size_t size, int flags) {
    if (record >= 0) unsupported("msync");
    return REAL(msync)(at, size, flags);
}
