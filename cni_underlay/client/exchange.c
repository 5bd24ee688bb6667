/*
 * One exchange with the agent, within the deadline of the call.
 *
 * A request whose connection ended before the first byte of an answer is sent once more, if somebody listens at once:
 * an agent that has just replaced another takes it, and a call that the other had begun converges when it is repeated.
 * There is no other retry: the runtime has its own.
 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HEADER = 16 };

const char MAGIC[4] = {'U', 'N', 'L', '1'};

static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static enum outcome reach(int sock, const struct call *call, struct answer *answer)
{
    answer->step = "connect";
    for (;;) {
        int64_t left = (call->deadline - nanoseconds(CLOCK_MONOTONIC)) / 1000;
        if (left <= 0) /* and a limit of 0 would mean none */
            return TIMED_OUT;
        /* connect(2) waits for room in the backlog, and of all ways to bound that only SO_SNDTIMEO needs no polling. */
        struct timeval limit = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
        setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(sock, (const struct sockaddr *)&call->address, sizeof call->address) == 0)
            return DONE;
        answer->error = errno;
        if (errno != EINTR && errno != EAGAIN)
            return UNREACHABLE;
    }
}

static ssize_t send_some(int sock, const struct call *call, size_t sent)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec rest = {.iov_base = call->frame + sent, .iov_len = call->length - sent};
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
    if (sent == 0 && call->netns >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &call->netns, sizeof(int));
    }
    return sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static enum outcome send_request(int sock, const struct call *call, struct answer *answer)
{
    answer->step = "send";
    for (size_t sent = 0; sent < call->length;) {
        int ready = wait_for(sock, POLLIN | POLLOUT, call->deadline);
        if (!ready)
            return TIMED_OUT;
        if (ready & POLLIN) /* an answer before the whole request was read, or the end: receiving tells which */
            return DONE;
        ssize_t written = send_some(sock, call, sent);
        if (written >= 0)
            sent += (size_t)written;
        else if (errno == EPIPE || errno == ECONNRESET) /* what was answered before can still be read */
            return DONE;
        else if (errno != EAGAIN && errno != EINTR)
            return answer->error = errno, DROPPED;
    }
    return DONE;
}

static enum outcome receive(int sock, const struct call *call, struct answer *answer, void *into, size_t length)
{
    for (char *at = into; length > 0;) {
        if (!wait_for(sock, POLLIN, call->deadline))
            return TIMED_OUT;
        ssize_t got = recv(sock, at, length, MSG_DONTWAIT);
        if (got > 0) {
            at += got;
            length -= (size_t)got;
            answer->received += (size_t)got;
        } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            answer->error = got == 0 ? 0 : errno;
            return answer->received ? TRUNCATED : DROPPED;
        }
    }
    return DONE;
}

static enum outcome receive_answer(int sock, const struct call *call, struct answer *answer)
{
    unsigned char header[HEADER];
    answer->step = "receive";
    enum outcome outcome = receive(sock, call, answer, header, sizeof header);
    if (outcome != DONE)
        return outcome;
    answer->status = get32(header + 4);
    answer->out = get32(header + 8);
    answer->err = get32(header + 12);
    if (memcmp(header, MAGIC, sizeof MAGIC) || answer->status > 255 || answer->out > LIMIT || answer->err > LIMIT)
        return GARBLED;
    answer->text = malloc((size_t)answer->out + answer->err + 1);
    if (!answer->text)
        return answer->error = ENOMEM, TRUNCATED;
    return receive(sock, call, answer, answer->text, (size_t)answer->out + answer->err);
}

static enum outcome attempt(const struct call *call, struct answer *answer)
{
    *answer = (struct answer){.step = "socket"};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return answer->error = errno, UNREACHABLE;
    enum outcome outcome = reach(sock, call, answer);
    if (outcome == DONE)
        outcome = send_request(sock, call, answer);
    if (outcome == DONE)
        outcome = receive_answer(sock, call, answer);
    close(sock);
    return outcome;
}

enum outcome ask(const struct call *call, struct answer *answer)
{
    enum outcome outcome = attempt(call, answer);
    return outcome == DROPPED ? attempt(call, answer) : outcome;
}
