/* A slower disk: preloaded into a process, it makes every fsync and fdatasync last BENCH_SYNC_DELAY_US microseconds longer.
 * Disks of many clouds take 0.5 to 4 ms for what a good local one does in 0.05 ms. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

typedef int (*sync_call)(int);

static struct timespec delay;
static sync_call real_fsync, real_fdatasync;

__attribute__((constructor)) static void prepare(void)
{
    const char *text = getenv("BENCH_SYNC_DELAY_US");
    long microseconds = text ? strtol(text, NULL, 10) : 0;
    delay.tv_sec = microseconds / 1000000;
    delay.tv_nsec = microseconds % 1000000 * 1000;
    real_fsync = (sync_call)dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (sync_call)dlsym(RTLD_NEXT, "fdatasync");
}

static int slowed(sync_call call, int file)
{
    int answer = call(file), kept = errno;
    struct timespec left = delay;
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    errno = kept;
    return answer;
}

int fsync(int file) { return slowed(real_fsync, file); }
int fdatasync(int file) { return slowed(real_fdatasync, file); }
