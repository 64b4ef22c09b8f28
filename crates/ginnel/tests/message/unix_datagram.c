/* The other end of a Unix datagram socket, by the man pages alone.
   unix_datagram send ADDRESS TEXT | recv ADDRESS (prints "ready", then the message)
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
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t len = fill(&address, argv[2]);
    if (argc == 4 && strcmp(argv[1], "send") == 0) {
        if (sendto(fd, argv[3], strlen(argv[3]), 0, (struct sockaddr *)&address, len) == -1)
            return fail("sendto");
        return 0;
    }
    if (bind(fd, (struct sockaddr *)&address, len) == -1)
        return fail("bind");
    puts("ready");
    fflush(stdout);
    ssize_t got = recv(fd, text, sizeof text, 0);
    if (got == -1)
        return fail("recv");
    printf("%.*s\n", (int)got, text);
    return 0;
}
