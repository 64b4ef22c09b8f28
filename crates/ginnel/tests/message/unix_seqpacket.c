/* The other end of a Unix seqpacket socket, by the man pages alone.
   unix_seqpacket send ADDRESS TEXT... | recv ADDRESS (prints "ready", then each message of one client until its end)
   An ADDRESS is a path, or @NAME. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static socklen_t fill(struct sockaddr_un *address, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path, name, sizeof address->sun_path - 1);
    if (name[0] == '@') {
        address->sun_path[0] = 0;
        return offsetof(struct sockaddr_un, sun_path) + strlen(name);
    }
    return sizeof *address;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    static char text[65536];
    struct sockaddr_un address;

    if (argc < 3)
        return 2;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    socklen_t len = fill(&address, argv[2]);
    if (argc > 3 && strcmp(argv[1], "send") == 0) {
        if (connect(fd, (struct sockaddr *)&address, len) == -1)
            return fail("connect");
        for (int i = 3; i < argc; i++)
            if (send(fd, argv[i], strlen(argv[i]), MSG_EOR) == -1)
                return fail("send");
        return 0;
    }
    if (bind(fd, (struct sockaddr *)&address, len) == -1)
        return fail("bind");
    if (listen(fd, 5) == -1)
        return fail("listen");
    puts("ready");
    fflush(stdout);
    int client = accept(fd, NULL, NULL);
    ssize_t got;
    while ((got = recv(client, text, sizeof text, 0)) > 0)
        printf("%.*s\n", (int)got, text);
    return got == -1 ? fail("recv") : 0;
}
