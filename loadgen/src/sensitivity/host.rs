//! What a run stands on: the servers' binaries, a folder for their data, the disk under it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::grid::Program;
use crate::{disk, interrupt, scene::Scene};

/// The disk is measured at so many sizes and in so many ways, for so long each.
const DISK_TIME: Duration = Duration::from_millis(400);
/// Room for the clusters, in the folder for data.
const FOLDER: &str = "loadgen-sensitivity";

/// A binary that was found, and what it says of itself.
pub(super) struct Server {
    pub(super) program: Program,
    pub(super) path: PathBuf,
    version: String,
    /// Of all its bytes: versions are not changed with each build.
    build: String,
}

impl Server {
    /// Runs it to hear its version. `flag` is what named it.
    pub(super) fn look(program: Program, flag: &str, path: PathBuf) -> Result<Self, String> {
        let named = |error: io::Error| format!("{flag} {}: {error}", path.display());
        let bytes = fs::read(&path).map_err(named)?;
        let ran = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
        let ran = ran.map_err(named)?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let version = said.lines().find_map(|line| {
            let (what, version) = line.split_once(':')?;
            let ours = format!("{} version", program.name());
            (what.to_lowercase() == ours).then(|| version.trim().to_owned())
        });
        let version = version.filter(|_| ran.status.success()).ok_or_else(|| {
            let (path, title) = (path.display(), program.title());
            format!("{flag} {path}: --version does not say that it is {title}")
        })?;
        let path = fs::canonicalize(&path).map_err(named)?;
        Ok(Self { program, path, version, build: format!("{:016x}", fnv(&bytes)) })
    }

    pub(super) fn json(&self) -> Value {
        let Self { program, version, build, .. } = self;
        json!({ "name": program.title(), "version": version, "build": build })
    }
}

/// The server of the same build, else the one that is installed.
pub(super) fn beside_us() -> Result<PathBuf, String> {
    let name = Program::Ringleader.name();
    let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let beside = own.with_file_name(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut all = std::iter::once(beside.clone()).chain(installed);
    all.find(|path| path.is_file()).ok_or_else(|| {
        let beside = beside.display();
        format!("there is no {beside}, and no {name} in PATH: which server? (--server PATH)")
    })
}

/// Fowler, Noll and Vo's hash, 1a: tells builds apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What of the host must be the same for figures to stand beside each other.
pub(super) fn identity(data: &Path, servers: &[Server]) -> Value {
    let scene = Scene::new(&[], Some(data), &[], "").json();
    json!({
        "servers": servers.iter().map(Server::json).collect::<Vec<_>>(),
        "host": scene["host"],
        "kernel": scene["kernel"],
        "disk": scene["disk"],
    })
}

/// A folder of ours for the members' data, gone when dropped. What a run left that could not clean up
/// is gone when the next one ends.
pub(super) struct Scratch {
    pub(super) folder: PathBuf,
    _lock: File,
}

impl Scratch {
    pub(super) fn take(data: &Path) -> Result<Self, String> {
        let folder = data.join(FOLDER);
        let named = |error: io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(named)?;
        let lock = File::create(folder.join("lock")).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("{}: another run is using it", folder.display()));
            }
            Err(TryLockError::Error(error)) => return Err(named(error)),
        }
        let folder = fs::canonicalize(&folder).map_err(named)?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// What the disk takes for a block; or why that is not known.
pub(super) fn measure_disk(folder: &Path) -> Value {
    let said = |why: &str| json!({ "why": why });
    let report = match disk::measure(folder, DISK_TIME) {
        Ok(report) => report.json(),
        Err(why) => return said(&why),
    };
    let row = &report["rows"][0];
    let millis = |name: &str| row[name].as_f64().map(|micros| micros.round() / 1e3);
    match interrupt::asked() {
        true => said("it was interrupted"),
        false => json!({
            "p50_ms": millis("p50_us"),
            "p99_ms": millis("p99_us"),
            "max_ms": millis("max_us"),
            "election_ms_asked": report["verdict"]["election_ms_asked"],
        }),
    }
}
