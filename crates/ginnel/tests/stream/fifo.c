/* The other end of a FIFO, by the man pages: open(2), fifo(7).
 *   fifo read PATH         copies it to the standard output to its end
 *   fifo write PATH TEXT   writes TEXT
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char buffer[4096];
    ssize_t len;

    if (argc == 3 && !strcmp(argv[1], "read")) {
        int fd = open(argv[2], O_RDONLY);
        if (fd < 0)
            return perror(argv[2]), 1;
        while ((len = read(fd, buffer, sizeof buffer)) > 0)
            if (write(1, buffer, len) != len)
                return perror("write"), 1;
        return len < 0;
    }
    if (argc == 4 && !strcmp(argv[1], "write")) {
        int fd = open(argv[2], O_WRONLY);
        if (fd < 0)
            return perror(argv[2]), 1;
        return write(fd, argv[3], strlen(argv[3])) != (ssize_t)strlen(argv[3]);
    }
    fprintf(stderr, "usage: fifo read PATH | write PATH TEXT\n");
    return 2;
}
