/* The other end of a TCP connection, by the man pages: tcp(7), ip(7).
 *   tcp serve               listens on 127.0.0.1, prints the port, accepts one connection, sends all back in capitals
 *   tcp client PORT TEXT    connects, sends TEXT, shuts down, prints what comes back
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int serve(int fd, struct sockaddr_in *in)
{
    char buffer[4096];
    socklen_t size = sizeof *in;
    ssize_t len;

    if (bind(fd, (struct sockaddr *)in, size) || listen(fd, 5) || getsockname(fd, (struct sockaddr *)in, &size))
        return perror("bind"), 1;
    printf("%d\n", ntohs(in->sin_port));
    fflush(stdout);
    int peer = accept(fd, NULL, NULL);
    while ((len = read(peer, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < len; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        if (write(peer, buffer, len) != len)
            return perror("write"), 1;
    }
    return len < 0;
}

static int client(int fd, struct sockaddr_in *in, const char *text)
{
    char buffer[4096];
    ssize_t len;

    if (connect(fd, (struct sockaddr *)in, sizeof *in))
        return perror("connect"), 1;
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || shutdown(fd, SHUT_WR))
        return perror("write"), 1;
    while ((len = read(fd, buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, len, stdout);
    return len < 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (argc == 2 && !strcmp(argv[1], "serve"))
        return serve(fd, &in);
    if (argc == 4 && !strcmp(argv[1], "client")) {
        in.sin_port = htons(atoi(argv[2]));
        return client(fd, &in, argv[3]);
    }
    fprintf(stderr, "usage: tcp serve | client PORT TEXT\n");
    return 2;
}
