/* Descriptors: the standard ones, writing, and waiting with an end. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

int64_t nanoseconds(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

bool write_all(int descriptor, const void *bytes, size_t length)
{
    for (const char *at = bytes; length > 0;) {
        ssize_t written = write(descriptor, at, length);
        if (written > 0) {
            at += written;
            length -= (size_t)written;
        } else if (written == 0) {
            errno = EIO;
            return false;
        } else if (errno == EAGAIN) { /* the other holders of this pipe may have made it non-blocking */
            poll(&(struct pollfd){.fd = descriptor, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* The events that are ready (poll(2) adds POLLERR and POLLHUP), 0 when the time is over. */
int wait_for(int descriptor, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - nanoseconds(CLOCK_MONOTONIC);
        struct pollfd polled = {.fd = descriptor, .events = events};
        if (left <= 0)
            return 0;
        int ready = poll(&polled, 1, (int)(left / 1000000 + 1));
        if (ready > 0)
            return polled.revents;
        if (ready < 0 && errno != EINTR)
            return POLLERR;
    }
}

/* Keeps 0, 1 and 2 from becoming a socket that texts are written into. Returns a bit for each that was closed. */
int hold_standard_descriptors(void)
{
    int closed = 0;
    for (int descriptor = 0; descriptor <= 2; descriptor++) {
        if (fcntl(descriptor, F_GETFD) >= 0)
            continue;
        closed |= 1 << descriptor;
        if (open("/dev/null", O_RDWR) < 0 && open("/", O_RDONLY | O_DIRECTORY) < 0)
            _exit(EXIT_FAILURE);
    }
    return closed;
}
