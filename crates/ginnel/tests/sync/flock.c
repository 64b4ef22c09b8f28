/* The other end of the tests of flock.
 *
 *   flock hold FILE s|x   prints "held"; ends when it reads a line
 *   flock try FILE s|x    prints "free" or "taken"
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int fd = open(argv[2], O_RDONLY);
	int kind = *argv[3] == 's' ? LOCK_SH : LOCK_EX;
	int hold = !strcmp(argv[1], "hold");
	if (flock(fd, hold ? kind : kind | LOCK_NB) == -1 && errno != EWOULDBLOCK) {
		perror("flock");
		return 1;
	} else if (errno == EWOULDBLOCK) {
		puts("taken");
		return 0;
	}
	puts(hold ? "held" : "free");
	fflush(stdout);
	if (hold)
		getchar();
	return 0;
}
