/* A wall clock that steps, for LD_PRELOAD.
 *
 * CLOCK_FILE  its first eight bytes are a number of seconds (int64, as the machine has it) by which the wall clock is ahead.
 *             The monotonic clock is as it is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int file = -1;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    if (path) file = open(path, O_RDONLY | O_CLOEXEC);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int64_t ahead = 0;
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && pread(file, &ahead, sizeof ahead, 0) == sizeof ahead) now->tv_sec += ahead;
    return failed;
}
