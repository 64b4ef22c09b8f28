/* The other end of a System V queue, by the man pages alone.
   sysv_queue send KEY TYPE TEXT | recv KEY TYPE | ftok PATH PROJECT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>

struct message {
    long type;
    char text[8192];
};

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    static struct message message;

    if (argc == 4 && strcmp(argv[1], "ftok") == 0) {
        printf("%d\n", (int)ftok(argv[2], atoi(argv[3])));
        return 0;
    }
    if (argc < 4)
        return 2;
    int id = msgget((key_t)strtol(argv[2], NULL, 0), IPC_CREAT | 0600);
    if (id == -1)
        return fail("msgget");
    if (argc == 5 && strcmp(argv[1], "send") == 0) {
        message.type = atol(argv[3]);
        strcpy(message.text, argv[4]);
        if (msgsnd(id, &message, strlen(argv[4]), 0) == -1)
            return fail("msgsnd");
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "recv") == 0) {
        ssize_t len = msgrcv(id, &message, sizeof message.text, atol(argv[3]), 0);
        if (len == -1)
            return fail("msgrcv");
        printf("%ld %.*s\n", message.type, (int)len, message.text);
        return 0;
    }
    return 2;
}
