/* A member of a group for group.rs: says its group and what SIGUSR1 it gets. getpgrp(2), sigwaitinfo(2). */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    printf("%d %d\n", getpgrp(), getsid(0));
    fflush(stdout);
    if (sigwaitinfo(&set, &info) < 0)
        return 1;
    printf("from %d\n", info.si_pid);
    return 0;
}
