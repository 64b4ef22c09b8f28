# Perl's own System V IPC: its functions, and the modules IPC::SysV, IPC::Msg and IPC::Semaphore; two processes.
use strict;
use warnings;
use IPC::SysV qw(IPC_PRIVATE IPC_CREAT IPC_EXCL IPC_NOWAIT IPC_RMID IPC_STAT SEM_UNDO S_IRUSR S_IWUSR ftok
                 shmat shmdt memread memwrite);
use IPC::Msg;
use IPC::Semaphore;
use IPC::SharedMem;

sub check { my ($what, $holds) = @_; $holds or die "not so: $what ($!)\n" }

my $key = ftok($0, 7);
my $mode = S_IRUSR | S_IWUSR;

# Messages: a request to the child, and its answer by type.
my $queue = IPC::Msg->new($key, IPC_CREAT | IPC_EXCL | $mode) or die "msgget: $!";
check("it is there", !defined IPC::Msg->new($key, IPC_CREAT | IPC_EXCL | $mode) && $!{EEXIST});
my $child = fork // die;
if (!$child) {
    my $theirs = IPC::Msg->new($key, 0) or die "msgget: $!";
    for (1 .. 100) {
        my $text;
        check("a request", $theirs->rcv($text, 256, 1) == 1);
        check("an answer", $theirs->snd(2, uc $text));
    }
    exit 0;
}
for my $number (1 .. 100) {
    my $text;
    check("sent", $queue->snd(1, "request $number"));
    check("received", $queue->rcv($text, 256, 2) == 2 && $text eq "REQUEST $number");
}
waitpid $child, 0;
check("the child", $? == 0);
my $status = $queue->stat;
check("status", $status->qnum == 0 && $status->lspid == $child && $status->lrpid == $$ && ($status->mode & 0777) == 0600);
check("smaller", $queue->set(qbytes => 100) && $queue->stat->qbytes == 100);
check("full", $queue->snd(1, "x" x 100) && !$queue->snd(1, "y", IPC_NOWAIT) && $!{EAGAIN});
my $long;
check("too long", !defined $queue->rcv($long, 10, 0, IPC_NOWAIT) && $!{E2BIG});
check("removed", $queue->remove && !defined IPC::Msg->new($key, 0) && $!{ENOENT});

# Semaphores.
my $set = IPC::Semaphore->new($key, 3, IPC_CREAT | $mode) or die "semget: $!";
check("set", $set->setall(1, 2, 3) && join(",", $set->getall) eq "1,2,3");
check("one", $set->setval(1, 5) && $set->getval(1) == 5 && $set->getpid(1) == $$);
check("all or none", !$set->op(0, -1, IPC_NOWAIT, 2, -4, IPC_NOWAIT) && $!{EAGAIN} && $set->getval(0) == 1);
$child = fork // die;
if (!$child) {
    check("taken", $set->op(0, -1, SEM_UNDO));
    check("released", $set->op(1, -5, 0));
    kill 9, $$;
}
check("zero", $set->op(1, 0, 0) && waitpid($child, 0) == $child);
check("undone", $set->getval(0) == 1);
check("status", $set->stat->nsems == 3 && $set->getncnt(0) == 0 && $set->getzcnt(0) == 0);
check("removed", $set->remove);

# Shared memory: Perl's functions, and the module's.
my $id = shmget($key, 5000, IPC_CREAT | $mode) // die "shmget: $!";
my $read;
check("written", shmwrite($id, "from Perl", 100, 9) && shmread($id, $read, 100, 9) && $read eq "from Perl");
my $at = shmat($id, undef, 0) // die "shmat: $!";
check("attached", memread($at, $read, 100, 9) && $read eq "from Perl");
$child = fork // die;
if (!$child) {
    check("inherited", memwrite($at, "from a child", 0, 12) && defined shmdt($at));
    exit 0;
}
waitpid $child, 0;
check("the child", $? == 0 && memread($at, $read, 0, 12) && $read eq "from a child");
my $memory = IPC::SharedMem->new($key, 5000, $mode) or die "shmget: $!";
check("status", $memory->attach && $memory->stat->nattch == 2 && $memory->read(0, 12) eq "from a child");
check("detached", defined $memory->detach && defined shmdt($at) && $memory->remove);
check("removed", !defined shmget($key, 0, 0) && $!{ENOENT});
print "round trips\n";
