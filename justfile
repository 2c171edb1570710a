# The few commands of the house; each is one line and works without just.

# everything a change must pass
ci:
    .ci/run

# all tests, the simulator's usual seeds among them
test:
    cargo test --workspace

# the simulator alone; `just sim --seeds 1000..2000` for other seeds
sim *seeds="0..2000":
    RINGLEADER_SEEDS='{{ trim_start_match(seeds, "--seeds ") }}' cargo test --release --test sim members_keep -- --nocapture

# bugs planted into the simulator, with their stories; `just mutants snapshot` for some of them
mutants words="":
    RINGLEADER_MUTANTS="{{ words }}" cargo test --release --test sim planted_bugs -- --nocapture

# what a crash may leave of the tree, ten million states or so many; `just crash-states 12:345` for one again
crash-states what="10000000":
    RINGLEADER_STATES='{{ what }}' cargo test --release --test sim any_crash_state -- --nocapture

# the decoders, from a fresh seed, so many milliseconds each
fuzz millis="10000":
    RINGLEADER_FUZZ_SEED=$(date +%s) RINGLEADER_FUZZ_MILLIS={{ millis }} cargo test --test fuzz --lib fuzz -- --nocapture

# criterion
bench:
    cargo bench

# real processes, ours beside real etcd
e2e:
    cargo build --release && tests/e2e/run.sh

# the same load on etcd and on ours
compare:
    benches/compare.sh

fmt:
    cargo fmt --all
