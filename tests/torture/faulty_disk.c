/* A disk that fails on demand: loaded before the C library, it stands in for the calls that write and sync.
 *
 * ASPEN_FAULTS_UNDER   files below this folder are on the faulty disk; all others are left alone
 * ASPEN_FAULTS         a file that says what fails now, read at each call, so that it may change while the process runs:
 *
 *     sync EIO         fsync, fdatasync, and writes that sync, fail; what they should have synced is written
 *     full             what makes a file longer fails with ENOSPC
 *     stall MS         each sync takes so many milliseconds longer
 *
 * An empty file, or none, is a disk in order. Calls that a program makes past the C library (as Go does) are not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum fault { NONE, SYNC_FAILS, FULL, STALL };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static enum fault now(int fd, long *milliseconds) {
    const char *under = getenv("ASPEN_FAULTS_UNDER"), *file = getenv("ASPEN_FAULTS");
    char link[64], path[4096], text[64];
    if (under == NULL || file == NULL)
        return NONE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NONE;
    path[length] = 0;
    if (strncmp(path, under, strlen(under)) != 0)
        return NONE;
    int control = open(file, O_RDONLY | O_CLOEXEC);
    if (control < 0)
        return NONE;
    length = read(control, text, sizeof text - 1);
    close(control);
    text[length > 0 ? length : 0] = 0;
    if (strncmp(text, "sync EIO", 8) == 0)
        return SYNC_FAILS;
    if (strncmp(text, "full", 4) == 0)
        return FULL;
    if (sscanf(text, "stall %ld", milliseconds) == 1)
        return STALL;
    return NONE;
}

static int sync_fails(int fd) {
    long milliseconds = 0;
    int before = errno;
    enum fault fault = now(fd, &milliseconds);
    errno = before;
    if (fault == STALL) {
        struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
        nanosleep(&wait, NULL);
    }
    if (fault == SYNC_FAILS)
        errno = EIO;
    return fault == SYNC_FAILS;
}

static int grows(int fd, off_t end) {
    long milliseconds = 0;
    struct stat stat;
    int before = errno;
    enum fault fault = now(fd, &milliseconds);
    errno = before;
    if (fault != FULL || fstat(fd, &stat) != 0 || end <= stat.st_size)
        return 0;
    errno = ENOSPC;
    return 1;
}

static off_t total(const struct iovec *parts, int count) {
    off_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

static off_t place(int fd, size_t size) {
    struct stat stat;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && flags & O_APPEND && fstat(fd, &stat) == 0)
        return stat.st_size + (off_t)size;
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : at + (off_t)size;
}

int fsync(int fd) { return sync_fails(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return sync_fails(fd) ? -1 : REAL(fdatasync)(fd); }

static int opened_to_sync(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & (O_DSYNC | O_SYNC);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (grows(fd, place(fd, size)) || (opened_to_sync(fd) && sync_fails(fd)))
        return -1;
    return REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (grows(fd, at + (off_t)size))
        return -1;
    ssize_t written = REAL(pwrite)(fd, data, size, at);
    return opened_to_sync(fd) && sync_fails(fd) ? -1 : written;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (grows(fd, place(fd, total(parts, count))) || (opened_to_sync(fd) && sync_fails(fd)))
        return -1;
    return REAL(writev)(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    if (grows(fd, at + total(parts, count)))
        return -1;
    return REAL(pwritev)(fd, parts, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    if (grows(fd, at + total(parts, count)))
        return -1;
    ssize_t written = REAL(pwritev2)(fd, parts, count, at, flags);
    return flags & (RWF_DSYNC | RWF_SYNC) && sync_fails(fd) ? -1 : written;
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}

int ftruncate(int fd, off_t size) { return grows(fd, size) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int posix_fallocate(int fd, off_t at, off_t size) {
    return grows(fd, at + size) ? ENOSPC : REAL(posix_fallocate)(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) { return posix_fallocate(fd, at, size); }
