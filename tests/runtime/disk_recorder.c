/* Records what a process does to the files below a folder, in order, as a disk would see it: LD_PRELOAD this.
 *
 * REDECIDE_DISK   the folder; REDECIDE_LOG   where to append the records.
 * A record: op (1 byte), length of the path (u16), offset (i64), length of the data (u32), path, data.
 * Ops: C create, W write, T truncate to offset, S sync, U unlink, M mkdir. Little-endian, packed, as the test reads it.
 * It also makes the disk refuse: `refuse_after("W", n, errno)`, called through ctypes, lets n more of these ops pass and
 * fails all later ones: W writes, S syncs, O opening to write or create, L locks of byte ranges; n < 0: none any more.
 * Shared-memory files ("-shm") are left out: they are rebuilt after a crash, and never synced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_descriptor = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int concerns(const char *path) {
    const char *folder = getenv("REDECIDE_DISK");
    size_t length = folder ? strlen(folder) : 0, size = strlen(path);
    return length && strncmp(path, folder, length) == 0 && !(size > 4 && strcmp(path + size - 4, "-shm") == 0);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return concerns(path);
}

static void record(char op, const char *path, int64_t offset, const void *data, uint32_t size) {
    uint16_t length = strlen(path);
    char head[15];
    head[0] = op;
    memcpy(head + 1, &length, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &size, 4);
    struct iovec parts[3] = {{head, 15}, {(void *)path, length}, {(void *)data, size}};
    pthread_mutex_lock(&lock);
    if (log_descriptor < 0 && !getenv("REDECIDE_LOG")) { pthread_mutex_unlock(&lock); return; }
    if (log_descriptor < 0)
        log_descriptor = syscall(SYS_openat, AT_FDCWD, getenv("REDECIDE_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (syscall(SYS_writev, log_descriptor, parts, 3) != (long)(15 + length + size)) abort();
    pthread_mutex_unlock(&lock);
}

static int opened(const char *path, int flags, int existed, int descriptor) {
    if (descriptor >= 0 && (flags & O_CREAT) && !existed && concerns(path)) record('C', path, 0, "", 0);
    if (descriptor >= 0 && (flags & O_TRUNC) && existed && concerns(path)) record('T', path, 0, "", 0);
    return descriptor;
}

static char refused_op;
static int refused_after = -1, refused_errno;

void refuse_after(const char *op, int after, int number) { refused_op = *op; refused_errno = number; refused_after = after; }

static int refuses(char op, const char *path) {
    if (refused_after < 0 || op != refused_op || !concerns(path)) return 0;
    if (refused_after > 0) { refused_after--; return 0; }
    errno = refused_errno;
    return 1;
}

static int refuses_descriptor(char op, int descriptor) {
    char path[PATH_MAX];
    return refused_after >= 0 && op == refused_op && path_of(descriptor, path) && refuses(op, path);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if ((flags & (O_CREAT | O_RDWR | O_WRONLY)) && refuses('O', path)) return -1;  \
        int existed = access(path, F_OK) == 0;                                      \
        return opened(path, flags, existed, REAL(name)(path, flags, mode));         \
    }
OPEN(open)
OPEN(open64)

static ssize_t written(int descriptor, const void *data, ssize_t done, int64_t offset) {
    char path[PATH_MAX];
    if (done > 0 && path_of(descriptor, path)) record('W', path, offset, data, done);
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    if (refuses_descriptor('W', descriptor)) return -1;
    return written(descriptor, data, REAL(pwrite)(descriptor, data, size, offset), offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    if (refuses_descriptor('W', descriptor)) return -1;
    return written(descriptor, data, REAL(pwrite64)(descriptor, data, size, offset), offset);
}
ssize_t write(int descriptor, const void *data, size_t size) {
    off_t offset = lseek(descriptor, 0, SEEK_CUR);
    return written(descriptor, data, REAL(write)(descriptor, data, size), offset);
}

static int truncated(int descriptor, int64_t size, int done) {
    char path[PATH_MAX];
    if (done == 0 && path_of(descriptor, path)) record('T', path, size, "", 0);
    return done;
}
int ftruncate(int descriptor, off_t size) { return truncated(descriptor, size, REAL(ftruncate)(descriptor, size)); }
int ftruncate64(int descriptor, off64_t size) { return truncated(descriptor, size, REAL(ftruncate64)(descriptor, size)); }

static int synced(int descriptor, int done) {
    char path[PATH_MAX];
    if (done == 0 && path_of(descriptor, path)) record('S', path, 0, "", 0);
    return done;
}
int fsync(int descriptor) { return refuses_descriptor('S', descriptor) ? -1 : synced(descriptor, REAL(fsync)(descriptor)); }
int fdatasync(int descriptor) { return refuses_descriptor('S', descriptor) ? -1 : synced(descriptor, REAL(fdatasync)(descriptor)); }

int unlink(const char *path) {
    int done = REAL(unlink)(path);
    if (done == 0 && concerns(path)) record('U', path, 0, "", 0);
    return done;
}
int mkdir(const char *path, mode_t mode) {
    int done = REAL(mkdir)(path, mode);
    if (done == 0 && concerns(path)) record('M', path, 0, "", 0);
    return done;
}
#define FCNTL(name)                                                                 \
    int name(int descriptor, int command, ...) {                                    \
        va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
        if (command == F_SETLK && refuses_descriptor('L', descriptor)) return -1;   \
        return REAL(name)(descriptor, command, argument);                           \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* Not expected of a ledger: better no test than one that does not see everything. */
int rename(const char *old, const char *new) { if (concerns(old) || concerns(new)) abort(); return REAL(rename)(old, new); }
