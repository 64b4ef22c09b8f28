/* The other end of signal.rs: receives queued signals, or sends them. signal(7), sigqueue(3), sigwaitinfo(2). */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "recv") == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN + 2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        printf("ready\n");
        fflush(stdout);
        for (int n = atoi(argv[2]); n > 0; n--) {
            siginfo_t info;
            if (sigwaitinfo(&set, &info) < 0) {
                perror("sigwaitinfo");
                return 1;
            }
            printf("%s %d from %d\n", info.si_code == SI_QUEUE ? "queue" : "other", info.si_value.sival_int,
                   info.si_pid);
            fflush(stdout);
        }
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "send") == 0) {
        for (int n = 0; n < atoi(argv[3]); n++) {
            union sigval value = {.sival_int = n - 1};
            if (sigqueue(atoi(argv[2]), SIGRTMIN + 2, value) < 0) {
                perror("sigqueue");
                return 1;
            }
        }
        union sigval word = {.sival_ptr = (void *)0x123456789abcUL};
        return sigqueue(atoi(argv[2]), SIGRTMIN + 2, word) < 0;
    }
    return 2;
}
