/* The other end of a UDP socket on the loopback interface, by the man pages alone.
   udp send PORT TEXT (prints the answer) | recv (prints its port, then one datagram, and answers it) */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    static char text[65536];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    ssize_t got;

    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc == 4 && strcmp(argv[1], "send") == 0) {
        address.sin_port = htons(atoi(argv[2]));
        if (sendto(fd, argv[3], strlen(argv[3]), 0, (struct sockaddr *)&address, len) == -1)
            return fail("sendto");
        if ((got = recv(fd, text, sizeof text, 0)) == -1)
            return fail("recv");
        printf("%.*s\n", (int)got, text);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "recv") == 0) {
        if (bind(fd, (struct sockaddr *)&address, len) == -1)
            return fail("bind");
        getsockname(fd, (struct sockaddr *)&address, &len);
        printf("%d\n", ntohs(address.sin_port));
        fflush(stdout);
        if ((got = recvfrom(fd, text, sizeof text, 0, (struct sockaddr *)&address, &len)) == -1)
            return fail("recvfrom");
        printf("%.*s\n", (int)got, text);
        if (sendto(fd, "C answers", 9, 0, (struct sockaddr *)&address, len) == -1)
            return fail("sendto");
        return 0;
    }
    return 2;
}
