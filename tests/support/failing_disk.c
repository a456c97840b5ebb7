/* The FAIL_AT-th write or sync of a database file fails with the error FAIL_WITH (and all after it).

   Preloaded into failing_life.py by tests/storage/test_failing_disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long calls;

static int fails(int fd)
{
    char link[64], path[4096];
    const char *at = getenv("FAIL_AT"), *with = getenv("FAIL_WITH");
    ssize_t size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (!at || !with || size < 8 || strncmp(path + size - 8, "data.mdb", 8))
        return 0;
    if (++calls < atol(at))
        return 0;
    errno = atoi(with);
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return fails(fd) ? -1 : NEXT(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return fails(fd) ? -1 : NEXT(pwrite64)(fd, data, size, at);
}

ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at)
{
    return fails(fd) ? -1 : NEXT(pwritev)(fd, data, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t at)
{
    return fails(fd) ? -1 : NEXT(pwritev64)(fd, data, count, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return fails(fd) ? -1 : NEXT(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *data, int count)
{
    return fails(fd) ? -1 : NEXT(writev)(fd, data, count);
}

int fdatasync(int fd)
{
    return fails(fd) ? -1 : NEXT(fdatasync)(fd);
}

int fsync(int fd)
{
    return fails(fd) ? -1 : NEXT(fsync)(fd);
}
