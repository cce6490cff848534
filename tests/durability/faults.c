/* What may go wrong between the store and its disk, for LD_PRELOAD.
 *
 * FAULTS_DIR    the files under it are concerned, and no others.
 * FAULTS_FILE   its first byte says what goes wrong from now on:
 *                 0  nothing
 *                 w  the disk is full: writes fail with ENOSPC
 *                 h  the same, but the first half of each is written
 *                 s  the disk is failing: syncs fail with EIO
 *                 r  the disk is failing: reads fail with EIO
 * FAULTS_TRACE  if set, the file that is told what was written and what was synced, a line each, so that the test can
 *               take away what a loss of power would have: "W inode offset length before" (in hexadecimal, what a
 *               short write has replaced), "T inode length", "B thread inode" before a sync and "S thread inode" after.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int control = -1, trace = -1;
static char directory[PATH_MAX];
static size_t directory_length;

/* The real function behind NAME, found once. */
#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS_FILE"), *told = getenv("FAULTS_TRACE"), *dir = getenv("FAULTS_DIR");
    if (!dir) return;
    directory_length = strlen(dir);
    if (directory_length >= sizeof directory) abort();
    memcpy(directory, dir, directory_length + 1);
    if (file && (control = open(file, O_RDONLY | O_CLOEXEC)) < 0) abort();
    if (told && (trace = open(told, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0) abort();
}

static int is_below(const char *path, ssize_t length) {
    return length > (ssize_t)directory_length && path[directory_length] == '/'
        && memcmp(path, directory, directory_length) == 0;
}

static int concerns(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return is_below(path, readlink(link, path, sizeof path));
}

/* Whether fault FAULT is on, and FD concerned. */
static int is_on(char fault, int fd) {
    char now = '0';
    if (control < 0 || syscall(SYS_pread64, control, &now, 1, 0) != 1) return 0;
    int saved = errno, on = now == fault && concerns(fd);
    errno = saved;
    return on;
}

static ssize_t fail(int error) {
    errno = error;
    return -1;
}

/* How much of a write is let through; -1: nothing. */
static ssize_t room(int fd, size_t count) {
    if (is_on('w', fd)) return fail(ENOSPC);
    if (is_on('h', fd)) return count > 1 ? (ssize_t)(count / 2) : fail(ENOSPC);
    return (ssize_t)count;
}

/* Tells what happens to FD but for writes. */
static void tell(int fd, char what, long long number) {
    struct stat file;
    char line[96];
    if (trace < 0) return;
    int saved = errno;
    if (concerns(fd) && fstat(fd, &file) == 0) {
        unsigned long long inode = file.st_ino;
        int thread = (int)syscall(SYS_gettid);
        int length = what == 'T' ? snprintf(line, sizeof line, "T %llu %lld\n", inode, number)
                                 : snprintf(line, sizeof line, "%c %d %llu\n", what, thread, inode);
        if (syscall(SYS_write, trace, line, (size_t)length) != length) abort();
    }
    errno = saved;
}

/* A write about to happen. */
struct before {
    off64_t offset;
    ssize_t length;
    unsigned char bytes[64];
};

static off64_t position(int fd) {
    if (trace < 0) return 0;
    int append = fcntl(fd, F_GETFL) & O_APPEND;
    return lseek64(fd, 0, append ? SEEK_END : SEEK_CUR);
}

/* What a short write is going to replace; longer ones are appended, as far as is known of the library. */
static struct before look(int fd, off64_t offset, size_t count) {
    struct before before = {offset, 0, {0}};
    if (trace >= 0 && count <= sizeof before.bytes && concerns(fd)) {
        int saved = errno;
        before.length = syscall(SYS_pread64, fd, before.bytes, count, offset);
        errno = saved;
    }
    return before;
}

static ssize_t wrote(int fd, ssize_t count, struct before before) {
    struct stat file;
    char line[96 + 2 * sizeof before.bytes];
    int saved = errno;
    if (trace >= 0 && count > 0 && concerns(fd) && fstat(fd, &file) == 0) {
        int length = snprintf(line, 96, "W %llu %lld %lld ", (unsigned long long)file.st_ino,
                              (long long)before.offset, (long long)count);
        for (ssize_t n = 0; n < before.length; n++) length += sprintf(line + length, "%02x", before.bytes[n]);
        line[length++] = '\n';
        if (syscall(SYS_write, trace, line, (size_t)length) != length) abort();
    }
    errno = saved;
    return count;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    ssize_t fits = room(fd, count);
    if (fits < 0) return -1;
    struct before before = look(fd, position(fd), (size_t)fits);
    return wrote(fd, real(fd, bytes, (size_t)fits), before);
}

#define WRITE_AT(name, type) \
    ssize_t name(int fd, const void *bytes, size_t count, type offset) { \
        REAL(name); \
        ssize_t fits = room(fd, count); \
        if (fits < 0) return -1; \
        struct before before = look(fd, offset, (size_t)fits); \
        return wrote(fd, real(fd, bytes, (size_t)fits, offset), before); \
    }

WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)

static size_t length_of(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int n = 0; n < count; n++) length += parts[n].iov_len;
    return length;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (is_on('w', fd) || is_on('h', fd)) return fail(ENOSPC);
    struct before before = look(fd, position(fd), length_of(parts, count));
    return wrote(fd, real(fd, parts, count), before);
}

#define WRITEV_AT(name, type) \
    ssize_t name(int fd, const struct iovec *parts, int count, type offset) { \
        REAL(name); \
        if (is_on('w', fd) || is_on('h', fd)) return fail(ENOSPC); \
        struct before before = look(fd, offset, length_of(parts, count)); \
        return wrote(fd, real(fd, parts, count, offset), before); \
    }

WRITEV_AT(pwritev, off_t)
WRITEV_AT(pwritev64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned int flags) {
    REAL(copy_file_range);
    if (is_on('w', out) || is_on('h', out)) return fail(ENOSPC);
    return real(in, from, out, to, count, flags);
}

/* Growing needs room, whatever it is called. */
static int has_room(int fd) {
    return !is_on('w', fd) && !is_on('h', fd);
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    if (!has_room(fd)) return (int)fail(ENOSPC);
    int done = real(fd, length);
    if (done == 0) tell(fd, 'T', length);
    return done;
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    if (!has_room(fd)) return (int)fail(ENOSPC);
    int done = real(fd, length);
    if (done == 0) tell(fd, 'T', length);
    return done;
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    REAL(fallocate);
    return has_room(fd) ? real(fd, mode, offset, length) : (int)fail(ENOSPC);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    REAL(fallocate64);
    return has_room(fd) ? real(fd, mode, offset, length) : (int)fail(ENOSPC);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    REAL(posix_fallocate);
    return has_room(fd) ? real(fd, offset, length) : ENOSPC;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    REAL(posix_fallocate64);
    return has_room(fd) ? real(fd, offset, length) : ENOSPC;
}

#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        if (is_on('s', fd)) return (int)fail(EIO); \
        tell(fd, 'B', 0); \
        int done = real(fd); \
        if (done == 0) tell(fd, 'S', 0); \
        return done; \
    }

SYNC(fsync)
SYNC(fdatasync)

ssize_t read(int fd, void *bytes, size_t count) {
    REAL(read);
    return is_on('r', fd) ? fail(EIO) : real(fd, bytes, count);
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    REAL(readv);
    return is_on('r', fd) ? fail(EIO) : real(fd, parts, count);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    REAL(pread);
    return is_on('r', fd) ? fail(EIO) : real(fd, bytes, count, offset);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    REAL(pread64);
    return is_on('r', fd) ? fail(EIO) : real(fd, bytes, count, offset);
}
