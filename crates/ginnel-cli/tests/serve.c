/*
 * A client of `ginnel serve` over a System V queue, in C: see the wire format at the head of src/rpc/mod.rs.
 *
 *   serve KEY TEXT...    asks once a TEXT, prints each reply
 *
 * Written for a little-endian host, as the format is little-endian.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <unistd.h>

struct request {
    long type; /* 1 */
    char magic[4];
    int32_t pid;
    uint64_t pid_namespace;
    uint64_t client;
    uint64_t number;
    char payload[4096];
};

struct reply {
    long type; /* the client's PID */
    char magic[4];
    int32_t status;
    uint64_t client;
    uint64_t number;
    char payload[8192];
};

#define HEAD(message) (offsetof(struct message, payload) - sizeof(long))

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: serve KEY TEXT...\n");
        return 2;
    }
    int queue = msgget((key_t)strtol(argv[1], NULL, 0), 0);
    struct stat namespace;
    if (queue == -1 || stat("/proc/self/ns/pid", &namespace) == -1) {
        perror(argv[1]);
        return 1;
    }
    struct request request = { .type = 1, .magic = "GRQ1", .pid = getpid(), .client = 0x1234 };
    request.pid_namespace = namespace.st_ino;
    for (int i = 2; i < argc; i++) {
        size_t len = strlen(argv[i]);
        memcpy(request.payload, argv[i], len);
        request.number = (uint64_t)i;
        if (msgsnd(queue, &request, HEAD(request) + len, 0) == -1) {
            perror("msgsnd");
            return 1;
        }
        struct reply reply;
        ssize_t got = msgrcv(queue, &reply, sizeof reply - sizeof(long), getpid(), 0);
        if (got < (ssize_t)HEAD(reply) || memcmp(reply.magic, "GRP1", 4) != 0) {
            perror("msgrcv");
            return 1;
        }
        if (reply.client != request.client || reply.number != request.number) {
            fprintf(stderr, "a reply to another request\n");
            return 1;
        }
        printf("%d %.*s\n", reply.status, (int)(got - (ssize_t)HEAD(reply)), reply.payload);
    }
    return 0;
}
