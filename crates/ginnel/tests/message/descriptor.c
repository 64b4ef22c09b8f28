/* The other end of a Unix seqpacket connection (descriptor 0) that passes descriptors, by the man pages alone.
   descriptor send PATH (opens PATH and passes it) | recv (receives a descriptor, prints what it reads from it) */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    char text[256], control[CMSG_SPACE(sizeof(int))];
    struct iovec part = { .iov_base = text, .iov_len = sizeof text };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    struct cmsghdr *header;
    int fd;

    if (argc == 3 && strcmp(argv[1], "send") == 0) {
        if ((fd = open(argv[2], O_RDONLY)) == -1)
            return fail("open");
        memset(control, 0, sizeof control);
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        part.iov_len = snprintf(text, sizeof text, "take this");
        return sendmsg(0, &message, 0) == -1 ? fail("sendmsg") : 0;
    }
    if (recvmsg(0, &message, 0) == -1)
        return fail("recvmsg");
    header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS)
        return 3;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    ssize_t len = read(fd, text, sizeof text);
    return len == -1 ? fail("read") : write(1, text, len) != len;
}
