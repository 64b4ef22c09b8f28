# What the developers of Ginnel run. `just` lists it.

default:
    @just --list

# All that CI runs.
ci:
    bash .ci/run

# The tests of the README.
test:
    cargo test --workspace --all-features

# 64 clients, a thousand requests each, over one System V queue and one Unix socket: minutes.
requests:
    GINNEL_TEST_REQUESTS=1000 cargo test -p ginnel-cli --test serve -- sixty --nocapture

# One mechanism's tests: just mechanism message sysv_queue
mechanism family name:
    cargo test -p ginnel --all-features --test {{family}} {{name}}

# What the man pages promise, asked of every home: just conformance (GINNEL_CLAUSE=msgop for some).
conformance:
    cargo test -p ginnel-conformance --test kernel --test user -- --nocapture

# The same random operations in two homes, every result compared: just differential (GINNEL_SEED=7 to replay).
differential operations="5000000" lockstep="20000" which="user_space":
    GINNEL_OPERATIONS={{operations}} GINNEL_LOCKSTEP={{lockstep}} \
        cargo test --release -p ginnel-conformance --test differential -- --nocapture --test-threads=1 {{which}}

# The main job, optimised.
tour *args:
    cargo run --release -- tour {{args}}

# The user-space home against the kernel's, optimised: just bench --quick pair
bench *args:
    cargo run --release -- bench {{args}}

# The drop-in under the real programs, as long as the measurements do (`bash .ci/programs` installs them).
programs:
    GINNEL_TEST_FULL=1 cargo test --release -p ginnel-preload --test programs -- --nocapture

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

# Licences and advisories of the dependencies (needs cargo-deny).
deny:
    cargo deny check

# Lock, blocked operations and stakes under many orders of their accesses, with threads killed in between.
model orders="20000":
    GINNEL_MODEL={{orders}} RUSTFLAGS="--cfg ginnel_model" cargo test -p ginnel-engine --target-dir target/model --test model

# Killed at every instruction of every operation, each test's numbers in one line: an hour (GINNEL_STRIDE=29 for a slice).
# Optimised, as users have it: a debug build has ten times the instructions, and the time is their square.
crash:
    GINNEL_STRIDE="${GINNEL_STRIDE:-1}" cargo test --release -p ginnel-engine --no-fail-fast -- --nocapture kill killed dead death dies dying given stopped served 2>&1 \
        | grep -E '^(crash|stopped|test |failures|thread|isolated)|violation|panicked|FAILED'

# Every word of every kind of object overwritten and bits flipped, two processes at work, one object beside it.
# With the checks of a debug build: an overflow is a panic, and a panic is a violation.
hostile:
    GINNEL_STRIDE="${GINNEL_STRIDE:-1}" cargo test -p ginnel-engine --no-fail-fast -- --nocapture scribbled overwritten flipped 2>&1 \
        | grep -E '^(hostile|test |failures|thread|isolated)|violation|panicked|FAILED'

# Files that are not what they should be, opened and used as each kind of object: a stable fuzzer with seeds, in the tests,
# as cargo-fuzz needs a nightly compiler. GINNEL_SEED=7 for other ones.
fuzz cases="20000":
    GINNEL_STRIDE=1 GINNEL_FUZZ={{cases}} cargo test -p ginnel-engine --test hostile -- --nocapture any_file | grep -E '^(fuzz|test )'

# The unsafe parts under valgrind (apt-get install valgrind): the documentation's examples cannot, the benchmark's pairs can.
valgrind:
    bash .ci/valgrind

# Needs a nightly compiler (`rustup +nightly component add miri`). Miri knows neither futexes between processes nor mapped
# files, so it sees what is done in private memory: the examples that need no system call but those it emulates.
miri:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" cargo +nightly miri test -p ginnel-engine --lib
