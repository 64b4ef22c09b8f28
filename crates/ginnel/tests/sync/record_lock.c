/* The other end of the tests of record locks.
 *
 *   record_lock hold posix|ofd FILE r|w START LEN   prints "held"; ends when it reads a line
 *   record_lock who posix|ofd FILE r|w START LEN    prints "free", or l_pid, start and length of what is in the way
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(int result, const char *call)
{
	if (result == -1) {
		perror(call);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	int ofd = !strcmp(argv[2], "ofd");
	int fd = open(argv[3], O_RDWR);
	check(fd, "open");
	struct flock lock = {
		.l_type = *argv[4] == 'r' ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = atol(argv[5]),
		.l_len = atol(argv[6]),
	};
	if (!strcmp(argv[1], "hold")) {
		check(fcntl(fd, ofd ? F_OFD_SETLKW : F_SETLKW, &lock), "fcntl");
		puts("held");
		fflush(stdout);
		getchar();
		return 0;
	}
	check(fcntl(fd, ofd ? F_OFD_GETLK : F_GETLK, &lock), "fcntl");
	if (lock.l_type == F_UNLCK)
		puts("free");
	else
		printf("%d %c %ld %ld\n", lock.l_pid, lock.l_type == F_RDLCK ? 'r' : 'w', (long)lock.l_start,
		       (long)lock.l_len);
	return 0;
}
