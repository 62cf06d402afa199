# Each recipe is plain cargo; CI calls .ci/run.

# What CI runs.
check:
    .ci/run

# The everyday tests.
test:
    cargo test --workspace

# The tests that need root and /dev/net/tun.
test-privileged:
    cargo test --workspace -- --ignored

# Format, lint, document.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps

# A whole private network on this machine.
demo *FLAGS:
    cargo run --release -- demo {{FLAGS}}

# Fresh seeds of the simulated world, and every saved scenario.
sim SEEDS="2000":
    SEEDS={{SEEDS}} cargo test --release -p connlib-sim -- --nocapture

# Breaks the code in small plausible ways, each of which the simulated world must notice.
mutants *NAMES:
    crates/sim/mutants/run {{NAMES}}
