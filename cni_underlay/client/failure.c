/*
 * Failures that the client finds by itself: one JSON object on standard output, exit status 1.
 *
 * No text of ours says "not found" or "no such file or directory": go-cni takes a DEL that failed with these for a
 * success, and the address would leak.
 */
#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT = 512 };

/* Never strerror(), for the rule above. The C library's own table of names came with glibc 2.32 only. */
const char *errno_name(int error)
{
    static char number[32];
    static const struct {
        int error;
        const char *name;
    } names[] = {
#define NAMED(error) {error, #error}
        NAMED(EACCES), NAMED(EAGAIN), NAMED(EBADF), NAMED(ECONNREFUSED), NAMED(ECONNRESET), NAMED(EDQUOT),
        NAMED(EEXIST), NAMED(EFBIG), NAMED(EIO), NAMED(EISDIR), NAMED(ELOOP), NAMED(EMFILE),
        NAMED(ENAMETOOLONG), NAMED(ENFILE), NAMED(ENOENT), NAMED(ENOMEM), NAMED(ENOSPC), NAMED(ENOTDIR),
        NAMED(ENOTSOCK), NAMED(EPERM), NAMED(EPIPE), NAMED(EPROTOTYPE), NAMED(EROFS), NAMED(ETOOMANYREFS),
#undef NAMED
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            return names[i].name;
    snprintf(number, sizeof number, "errno %d", error);
    return number;
}

/* Length of the UTF-8 sequence at `text`, 0 when it is none (RFC 3629: no surrogates, no longer form than needed). */
static size_t utf8_sequence(const unsigned char *text)
{
    unsigned char lead = text[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80) /* the terminating NUL too */
            return 0;
    bool too_long = (lead == 0xe0 && text[1] < 0xa0) || (lead == 0xf0 && text[1] < 0x90);
    bool outside = (lead == 0xed && text[1] > 0x9f) || (lead == 0xf4 && text[1] > 0x8f);
    return too_long || outside ? 0 : length;
}

/* Writes the text as a JSON string; one byte becomes six at most. */
static char *put_json(char *at, const char *text)
{
    *at++ = '"';
    for (const unsigned char *from = (const unsigned char *)text; *from;) {
        size_t length = utf8_sequence(from);
        if (length == 0) {
            at = stpcpy(at, "\\ufffd");
            length = 1;
        } else if (*from < 0x20 || *from == '"' || *from == '\\') {
            at += sprintf(at, "\\u%04x", *from);
        } else {
            at = mempcpy(at, from, length);
        }
        from += length;
    }
    *at++ = '"';
    return at;
}

/* A path from the environment may hold the words that no text of ours may. */
static void defuse(char *text)
{
    static const char *const words[] = {"not found", "no such file"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (char *hit; (hit = strcasestr(text, words[i]));)
            *strchr(hit, ' ') = '_';
}

void die(int code, const char *details, const char *format, ...)
{
    char message[TEXT], detail[TEXT], json[2 * 6 * TEXT + 128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(detail, sizeof detail, "%s", details);
    defuse(message);
    defuse(detail);
    char *at = json + sprintf(json, "{\"cniVersion\":\"1.1.0\",\"code\":%d,\"msg\":", code);
    at = put_json(at, message);
    at = put_json(stpcpy(at, ",\"details\":"), detail);
    at = stpcpy(at, "}\n");
    write_all(STDOUT_FILENO, json, (size_t)(at - json));
    exit(EXIT_FAILURE);
}
