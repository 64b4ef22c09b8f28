/* The other end of eventfd.rs, with an inherited descriptor. eventfd(2). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int fd = atoi(argv[1]);
    eventfd_t value;
    if (strcmp(argv[2], "read") == 0) {
        if (eventfd_read(fd, &value) < 0) {
            perror("eventfd_read");
            return 1;
        }
        printf("%ju\n", (uintmax_t)value);
        return 0;
    }
    for (int i = 2; i < argc; i++)
        if (eventfd_write(fd, strtoull(argv[i], NULL, 0)) < 0) {
            perror("eventfd_write");
            return 1;
        }
    return 0;
}
