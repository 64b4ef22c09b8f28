/* The other end of an inherited pipe, by the man pages: read(2), write(2), pipe(7).
 *   pipe read FD          reads to the end, prints how many bytes and their sum
 *   pipe write FD COUNT   writes COUNT bytes: 0, 1, ... 250, 0, 1, ...
 *   pipe descriptors      prints which descriptors it has
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int do_read(int fd)
{
    unsigned char buffer[4096];
    unsigned long count = 0, sum = 0;
    ssize_t len;

    while ((len = read(fd, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < len; i++)
            sum += buffer[i];
        count += len;
    }
    if (len < 0)
        return perror("read"), 1;
    printf("%lu %lu\n", count, sum);
    return 0;
}

static int do_write(int fd, unsigned long count)
{
    for (unsigned long done = 0; done < count;) {
        unsigned char buffer[1000];
        size_t chunk = count - done < sizeof buffer ? count - done : sizeof buffer;

        for (size_t i = 0; i < chunk; i++)
            buffer[i] = (done + i) % 251;
        ssize_t len = write(fd, buffer, chunk);
        if (len < 0)
            return perror("write"), 1;
        done += len;
    }
    return 0;
}

static int do_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;

    if (!directory)
        return perror("/proc/self/fd"), 1;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
            printf("%s ", entry->d_name);
    putchar('\n');
    return closedir(directory);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "read"))
        return do_read(atoi(argv[2]));
    if (argc == 4 && !strcmp(argv[1], "write"))
        return do_write(atoi(argv[2]), strtoul(argv[3], NULL, 10));
    if (argc == 2 && !strcmp(argv[1], "descriptors"))
        return do_descriptors();
    fprintf(stderr, "usage: pipe read FD | write FD COUNT | descriptors\n");
    return 2;
}
