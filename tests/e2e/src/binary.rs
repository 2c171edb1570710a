//! Which programs there are, and where.

use std::path::{Path, PathBuf};

/// cargo's folder for this profile, such as `target/debug`.
fn profile() -> PathBuf {
    let exe = std::env::current_exe().expect("a process knows its program");
    let folder = exe.parent().expect("a program lies in a folder");
    let inside = folder.ends_with("deps");
    if inside { folder.parent().expect("deps has a parent").into() } else { folder.into() }
}

/// cargo's `target`.
pub fn target() -> PathBuf {
    profile().parent().expect("a profile lies in target").into()
}

/// The server under test: `$RINGLEADER_BIN`, else the one cargo built beside this program.
///
/// # Panics
/// Where there is none: a test of the server cannot pass without a server.
pub fn ringleader() -> PathBuf {
    let built = profile().join("ringleader");
    let binary = std::env::var_os("RINGLEADER_BIN").map_or(built, PathBuf::from);
    assert!(
        binary.exists(),
        "there is no {}: build it (cargo build) or name one in RINGLEADER_BIN",
        binary.display()
    );
    binary
}

/// etcd's program of this name: in `$REAL_ETCD_DIR`, else in `target/etcd` where
/// `tests/e2e/build-etcd.sh` puts it. Where there is none, says that `test` is skipped; unless
/// `$REAL_ETCD_REQUIRED` is set, as it is in CI: then it panics.
pub fn etcd(name: &str, test: &str) -> Option<PathBuf> {
    let near = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/etcd");
    let built = if near.exists() { near } else { target().join("etcd") };
    let binary = std::env::var_os("REAL_ETCD_DIR").map_or(built, PathBuf::from).join(name);
    if binary.exists() {
        return Some(binary);
    }
    let missing = format!("no {}; see tests/e2e/build-etcd.sh", binary.display());
    assert!(std::env::var_os("REAL_ETCD_REQUIRED").is_none(), "{missing}");
    eprintln!("{test}: skipped, {missing}");
    None
}

/// Whether ours forms clusters of several: the one switch for all tests of clusters.
const OURS_FORMS_CLUSTERS: bool = true;

/// The server that tests of clusters start: ours, or etcd where `$E2E_CLUSTER` is `etcd`.
///
/// # Panics
/// Where `$E2E_CLUSTER` is neither `ours` nor `etcd`, and as [`ringleader`] and [`etcd`].
pub fn of_clusters(test: &str) -> Option<PathBuf> {
    let chosen = std::env::var("E2E_CLUSTER").ok();
    match chosen.as_deref() {
        Some("ours") => Some(ringleader()),
        Some("etcd") => etcd("etcd", test),
        Some(other) => panic!("E2E_CLUSTER={other}: ours or etcd"),
        None if OURS_FORMS_CLUSTERS => Some(ringleader()),
        None => etcd("etcd", test),
    }
}

/// `$E2E_SEED`, else one from the clock; said, so that a failure can be tried again.
#[allow(clippy::disallowed_methods, reason = "a new seed each time is the point")]
pub fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.expect("it is after 1970").as_nanos() as u64 % 1_000_000;
    let seed = std::env::var("E2E_SEED").map_or(fresh, |seed| seed.parse().expect("a number"));
    println!("E2E_SEED={seed}");
    seed
}
