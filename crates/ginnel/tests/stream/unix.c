/* The other end of a Unix stream socket, by the man pages: unix(7).
 *   unix serve NAME         accepts one connection, sends back all it gets, in capitals
 *   unix client NAME TEXT   connects, sends TEXT, shuts down, prints what comes back
 * NAME is a path, or @name.
 */
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static socklen_t address(struct sockaddr_un *un, const char *name)
{
    memset(un, 0, sizeof *un);
    un->sun_family = AF_UNIX;
    snprintf(un->sun_path, sizeof un->sun_path, "%s", name);
    if (name[0] != '@')
        return sizeof *un;
    un->sun_path[0] = 0;
    return offsetof(struct sockaddr_un, sun_path) + strlen(name);
}

static int serve(int fd, const struct sockaddr_un *un, socklen_t size)
{
    char buffer[4096];
    ssize_t len;

    if (bind(fd, (const struct sockaddr *)un, size) || listen(fd, 5))
        return perror("bind"), 1;
    puts("ready");
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

static int client(int fd, const struct sockaddr_un *un, socklen_t size, const char *text)
{
    char buffer[4096];
    ssize_t len;

    if (connect(fd, (const struct sockaddr *)un, size))
        return perror("connect"), 1;
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || shutdown(fd, SHUT_WR))
        return perror("write"), 1;
    while ((len = read(fd, buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, len, stdout);
    return len < 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_un un;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(fd, &un, address(&un, argv[2]));
    if (argc == 4 && !strcmp(argv[1], "client"))
        return client(fd, &un, address(&un, argv[2]), argv[3]);
    fprintf(stderr, "usage: unix serve NAME | client NAME TEXT\n");
    return 2;
}
