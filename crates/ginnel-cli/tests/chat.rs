//! `ginnel chat`: two real terminals (tmux), and plain pipes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ginnel_testkit::{Spawned, isolated, run, run_ok, spawn, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_ginnel");

fn chat(words: &[&str]) -> Command {
    let mut command = Command::new(EXE);
    command.arg("chat").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fifos() -> bool {
    Path::new("/dev/shm/talk.a").exists() || Path::new("/dev/shm/talk.b").exists()
}

/// For whoever looks for the reason of a failure.
fn show_progress() -> bool {
    std::env::var_os("GINNEL_TEST_SCREENS").is_some()
}

/// A tmux server of the test's own, which ends with the test.
struct Tmux {
    server: Spawned,
}

impl Tmux {
    fn start() -> Tmux {
        // In the foreground (-D), so that it is a child that can be killed and is waited for.
        let mut command = Command::new("tmux");
        command.args(["-L", "ginnel-chat", "-f", "/dev/null", "-D"]);
        command
            .env("TMUX_TMPDIR", "/dev/shm")
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .env("PS1", "$ ");
        let server = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let tmux = Tmux { server };
        wait_until("tmux is up", || run(&mut Tmux::command(&["start-server"])).status.success());
        tmux
    }

    fn command(words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command
            .args(["-L", "ginnel-chat"])
            .args(words)
            .env("TMUX_TMPDIR", "/dev/shm")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// A new terminal with a shell in it.
    fn terminal(&self, name: &'static str) -> Terminal {
        run_ok(&mut Tmux::command(&["new-session", "-d", "-s", name, "-x", "70", "-y", "20", "exec sh"]));
        Terminal(name)
    }
}

#[derive(Clone, Copy)]
struct Terminal(&'static str);

impl Terminal {
    fn keys(self, keys: &[&str]) {
        run_ok(&mut Tmux::command(&[&["send-keys", "-t", self.0], keys].concat()));
    }

    fn types(self, line: &str) {
        self.keys(&["-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(self) -> String {
        let text = run_ok(&mut Tmux::command(&["capture-pane", "-p", "-t", self.0]));
        text.trim_end().to_string()
    }

    #[track_caller]
    fn shows(self, text: &str, times: usize) {
        let what = format!("terminal {} shows {text:?} {times} times", self.0);
        wait_until(&what, || {
            let shown = self.screen().matches(text).count() == times;
            if !shown && show_progress() {
                eprintln!("--- {}\n{}", self.0, self.screen());
            }
            shown
        });
    }

    fn starts_chat(self) {
        self.types(&format!("{EXE} chat --name /dev/shm/talk"));
    }

    /// The process that has the terminal.
    fn foreground(self) -> i32 {
        let shell = run_ok(&mut Tmux::command(&["display-message", "-p", "-t", self.0, "#{pane_pid}"]));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", shell.trim())).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(5).unwrap().parse().unwrap()
    }

    fn settings(self) -> String {
        let tty = run_ok(&mut Tmux::command(&["display-message", "-p", "-t", self.0, "#{pane_tty}"]));
        run_ok(Command::new("stty").args(["-a", "-F", tty.trim()]))
    }

    /// Its settings are as they were.
    #[track_caller]
    fn is_restored(self, before: &str) {
        let what = format!("terminal {} is restored to\n{before}", self.0);
        let as_before = || {
            let now = self.settings();
            if now != before && show_progress() {
                eprintln!("--- {}\n{now}", self.0);
            }
            now == before
        };
        wait_until(&what, as_before);
    }

    fn kills_its_chat(self, signal: &str) {
        let pid = self.foreground();
        assert!(
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("chat"),
            "{pid} is no chat"
        );
        run_ok(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]));
    }

    fn prints(self, title: &str) {
        println!("=== terminal {}, {title}\n{}", self.0, self.screen().replace(EXE, "ginnel"));
    }
}

const HERE: &str = "* the other side is here";
const LEFT: &str = "* the other side has left";

#[test]
fn two_terminals_either_first_one_killed_and_back() {
    isolated(|| {
        let tmux = Tmux::start();
        let (a, b) = (tmux.terminal("anna"), tmux.terminal("bert"));
        let before = a.settings();

        // Anna first; it speaks before anybody is there.
        a.starts_chat();
        a.shows(">", 1);
        a.types("is anybody there?");
        a.shows("* nobody is there; what you say is kept until somebody is", 1);
        b.starts_chat();
        a.shows(HERE, 1);
        b.shows(HERE, 1);
        b.shows("< is anybody there?", 1);
        b.types("yes, over the garden wall");
        a.shows("< yes, over the garden wall", 1);

        // What comes in appears above a line that is being typed, and leaves that as it is.
        a.keys(&["-l", "half a sen"]);
        a.shows("> half a sen", 1);
        b.types("do go on");
        a.shows("< do go on", 1);
        a.shows("> half a sen", 1);
        a.types("tence");
        b.shows("< half a sentence", 1);
        // History.
        a.keys(&["Up"]);
        a.shows("> half a sentence", 2);
        a.keys(&["Enter"]);
        b.shows("< half a sentence", 2);

        // Bert is killed; his terminal is as it was, and Anna is told.
        let raw = b.settings();
        assert!(raw.contains("-icanon"), "{raw}");
        b.kills_its_chat("KILL");
        a.shows(LEFT, 1);
        b.is_restored(&before);
        assert!(fifos(), "Anna still uses them");
        a.types("are you still there?");
        a.shows("* nobody is there; what you say is kept", 2);

        // And he is back.
        b.starts_chat();
        b.shows("< are you still there?", 1);
        a.shows(HERE, 2);
        b.types("back again");
        a.shows("< back again", 1);

        // Anna leaves by Ctrl-D, and is the second to come this time.
        a.keys(&["C-d"]);
        b.shows(LEFT, 1);
        a.is_restored(&before);
        a.starts_chat();
        b.shows(HERE, 3);
        a.types("second this time");
        b.shows("< second this time", 1);
        a.prints("at the end");
        b.prints("at the end");

        // One leaves by Ctrl-C, the other one is asked to end: nothing is left of them.
        a.keys(&["C-c"]);
        b.shows(LEFT, 2);
        assert!(fifos());
        b.kills_its_chat("TERM");
        wait_until("the FIFOs are removed", || !fifos());
        a.is_restored(&before);
        b.is_restored(&before);
        drop(tmux.server);
    });
}

#[test]
fn escape_codes_do_not_reach_the_terminal() {
    isolated(|| {
        let tmux = Tmux::start();
        let a = tmux.terminal("anna");
        a.starts_chat();
        a.shows(">", 1);
        // A plain program is an other side too: `echo` comes and goes.
        wait_until("the FIFOs are there", || Path::new("/dev/shm/talk.b").exists());
        run_ok(Command::new("sh").args(["-c", r"printf '\033[2Jgone\n' >/dev/shm/talk.b"]));
        a.shows(r"< \u{1b}[2Jgone", 1);
        a.shows(LEFT, 1);
        drop(tmux.server);
    });
}

#[test]
fn without_a_terminal_plain_lines() {
    isolated(|| {
        let mut a = spawn(&mut chat(&["--name", "/dev/shm/talk"]));
        let mut to_a = a.stdin().unwrap();
        to_a.write_all(b"one\ntwo\n").unwrap();
        // The second one says what it has to say, and leaves when that is delivered.
        let mut b = spawn(&mut chat(&["--name", "/dev/shm/talk"]));
        let mut to_b = b.stdin().unwrap();
        let mut heard = std::io::BufReader::new(b.stdout().unwrap());
        let mut lines = String::new();
        std::io::BufRead::read_line(&mut heard, &mut lines).unwrap();
        std::io::BufRead::read_line(&mut heard, &mut lines).unwrap();
        assert_eq!(lines, "one\ntwo\n");
        to_b.write_all(b"three\n").unwrap();
        drop(to_b);
        b.assert_ok();
        assert!(fifos(), "one is left");
        let mut three = [0; 6];
        std::io::Read::read_exact(&mut a.stdout().unwrap(), &mut three).unwrap();
        assert_eq!(&three, b"three\n");
        drop(to_a);
        let output = a.wait_with_output();
        assert!(output.status.success());
        let notices = String::from_utf8(output.stderr).unwrap();
        assert!(notices.contains(HERE), "{notices}");
        assert!(!fifos(), "the last one removes them");
    });
}

#[test]
fn a_third_one_is_refused_and_does_no_harm() {
    isolated(|| {
        let mut a = spawn(&mut chat(&["--name", "/dev/shm/talk"]));
        let mut b = spawn(&mut chat(&["--name", "/dev/shm/talk"]));
        let (mut to_a, _to_b) = (a.stdin().unwrap(), b.stdin().unwrap());
        to_a.write_all(b"hello\n").unwrap();
        let mut heard = [0; 6];
        // Whichever took which side: a's line reaches b, so both sides are taken.
        std::io::Read::read_exact(&mut b.stdout().unwrap(), &mut heard).unwrap();
        let third = run(&mut chat(&["--name", "/dev/shm/talk"]));
        assert_eq!(third.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&third.stderr).contains("both sides of this chat are taken"),
            "{third:?}"
        );
        assert!(fifos());
        a.kill();
        b.kill();
        a.wait();
        b.wait();
        wait_until("the guardians remove the FIFOs", || !fifos());
    });
}

#[test]
fn fifos_that_were_there_stay() {
    isolated(|| {
        for path in ["/dev/shm/there", "/dev/shm/back"] {
            run_ok(Command::new("mkfifo").arg(path));
        }
        let mut a = spawn(&mut chat(&["/dev/shm/there", "/dev/shm/back"]));
        let mut b = spawn(&mut chat(&["/dev/shm/back", "/dev/shm/there"]));
        a.stdin().unwrap().write_all(b"hello\n").unwrap();
        let to_b = b.stdin().unwrap();
        let mut heard = [0; 6];
        std::io::Read::read_exact(&mut b.stdout().unwrap(), &mut heard).unwrap();
        assert_eq!(&heard, b"hello\n");
        drop(to_b);
        a.assert_ok();
        b.assert_ok();
        assert!(Path::new("/dev/shm/there").exists() && Path::new("/dev/shm/back").exists());
        // Two of the same side.
        let mut first = spawn(&mut chat(&["/dev/shm/there", "/dev/shm/back"]));
        let _stdin = first.stdin();
        let fifo = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/dev/shm/there").unwrap());
        wait_until("the first one sits there", || {
            std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{fifo} 0 EOF"))
        });
        let second = run(&mut chat(&["/dev/shm/there", "/dev/shm/back"]));
        assert!(String::from_utf8_lossy(&second.stderr).contains("another chat reads from it"), "{second:?}");
    });
}

#[test]
fn wrong_words() {
    isolated(|| {
        for words in [
            &[][..],
            &["/dev/shm/x"],
            &["/dev/shm/x", "/dev/shm/x"],
            &["--name", "/dev/shm/t", "/dev/shm/x", "y"],
        ] {
            assert_eq!(run(&mut chat(words)).status.code(), Some(2), "{words:?}");
        }
        std::fs::write("/dev/shm/talk.a", "precious").unwrap();
        let refused = run(&mut chat(&["--name", "/dev/shm/talk"]));
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not a FIFO"), "{refused:?}");
        assert_eq!(std::fs::read("/dev/shm/talk.a").unwrap(), b"precious");
        let missing = run(&mut chat(&["--name", "/no/such/directory/talk"]));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("No such file"), "{missing:?}");
    });
}

#[test]
fn what_cannot_begin_leaves_nothing() {
    isolated(|| {
        std::fs::write("/dev/shm/file", "").unwrap();
        for paths in [["/dev/shm/file", "/dev/shm/new"], ["/dev/shm/new", "/dev/shm/file"]] {
            let output = run(chat(&paths).stdin(Stdio::null()));
            assert_eq!(output.status.code(), Some(1));
            assert!(!Path::new("/dev/shm/new").exists(), "{paths:?}");
        }
        assert!(Path::new("/dev/shm/file").exists());
    });
}
