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
