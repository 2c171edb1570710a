//! What this machine allows: cores, locked memory, io_uring, and whether a directory is a place for
//! a database. Each no is a sentence that says what, where and what to do.
#![allow(unsafe_code)]

use super::{AlignedBuf, BLOCK_BYTES};
use crate::limits::MEMLOCK_BYTES_MIN;
use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt, fs::FileExt, fs::OpenOptionsExt},
    path::Path,
};

/// The cores this process may run on, ascending.
///
/// # Errors
/// What the machine says.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: the set is plain memory that the call fills in, and its size is passed along.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        set
    };
    let cores = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: every core asked for is within the set.
    Ok(cores.filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Raises the limits on locked memory and open files as far as this process may, then checks that
/// locked memory is enough.
///
/// # Errors
/// A sentence for the person who starts the process.
pub fn raise_limits() -> Result<(), String> {
    let locked = raise(libc::RLIMIT_MEMLOCK).map_err(|e| format!("reading RLIMIT_MEMLOCK: {e}"))?;
    raise(libc::RLIMIT_NOFILE).map_err(|e| format!("reading RLIMIT_NOFILE: {e}"))?;
    if locked < MEMLOCK_BYTES_MIN {
        return Err(format!(
            "the limit on locked memory (RLIMIT_MEMLOCK) is {locked} bytes and io_uring needs \
             {MEMLOCK_BYTES_MIN}; raise it with `ulimit -l 512`, LimitMEMLOCK= in the systemd unit, \
             or --ulimit memlock in the container"
        ));
    }
    Ok(())
}

/// Raises a soft limit to its hard one and returns it.
fn raise(which: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct outlives both calls.
    unsafe {
        if libc::getrlimit(which, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(which, &raised) == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

/// Checks that the kernel lets this process use io_uring.
///
/// # Errors
/// A sentence for the person who starts the process.
pub fn check_io_uring() -> Result<(), String> {
    /// `struct io_uring_params`: 120 bytes of numbers, zero for "as you like" (io_uring_setup(2)).
    #[repr(C, align(8))]
    struct Params([u8; 120]);
    let mut params = Params([0; 120]);
    // SAFETY: the call writes into `params`, which is as large as the kernel's struct, and returns a
    // descriptor that is closed below.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4u32, &raw mut params) };
    if ring >= 0 {
        // SAFETY: the descriptor was opened above and nobody else has it.
        unsafe { libc::close(ring as libc::c_int) };
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring; Linux 5.15 or newer is needed".to_owned()
        }
        Some(libc::EPERM) if !matches!(disabled.trim(), "" | "0") => format!(
            "io_uring is switched off here (kernel.io_uring_disabled={}); \
             set it to 0 with `sysctl kernel.io_uring_disabled=0`",
            disabled.trim()
        ),
        Some(libc::EPERM | libc::EACCES) => "io_uring is blocked, most likely by the container's \
             seccomp profile; allow io_uring_setup, io_uring_enter and io_uring_register in it"
            .to_owned(),
        Some(libc::ENOMEM) => "io_uring gets no memory for its queues; raise the limit on locked \
             memory (RLIMIT_MEMLOCK)"
            .to_owned(),
        _ => format!("io_uring does not start: {error}"),
    })
}

/// Bytes of memory that this process may use: the machine's, or less where a control group says so.
/// `None` where neither can be read.
pub fn memory_bytes() -> Option<u64> {
    let all = fs::read_to_string("/proc/meminfo").ok()?;
    let all = all.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"));
    let all = all?.trim().parse::<u64>().ok()? << 10;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = |line: &str| {
        // cgroups(7): number, controllers, path; without controllers in version 2.
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // A group above may allow less.
        let limits = Path::new(path).ancestors().filter_map(|group| {
            let file = Path::new(root).join(group).join(file);
            fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
        });
        limits.min()
    };
    groups.lines().filter_map(group).chain([all]).min()
}

/// Makes `dir` if there is none (mode 0700, as etcd) and checks that a database can live there:
/// a real disk, with O_DIRECT.
///
/// # Errors
/// A sentence that names the directory.
pub fn prepare_directory(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| format!("cannot make the directory {shown}: {error}"))?;
    if in_memory(dir).map_err(|error| format!("cannot look at {shown}: {error}"))? {
        return Err(format!(
            "{shown} is on a file system in memory (tmpfs): a restart of the machine would lose \
             everything; put it on a disk"
        ));
    }
    probe_direct(dir).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => format!(
            "the file system of {shown} does not take O_DIRECT writes of {BLOCK_BYTES} bytes, which \
             the log needs; use ext4 or XFS"
        ),
        io::ErrorKind::StorageFull => format!("the disk of {shown} is full: {error}"),
        _ => format!("cannot write in {shown}: {error}"),
    })
}

fn in_memory(dir: &Path) -> io::Result<bool> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: the path ends in a zero byte and the struct outlives the call.
    let stat = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &mut stat) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat
    };
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    Ok(matches!(stat.f_type, TMPFS | RAMFS))
}

fn probe_direct(dir: &Path) -> io::Result<()> {
    let path = dir.join(".probe");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)?;
    let wrote = file.write_all_at(&AlignedBuf::zeroed(BLOCK_BYTES), 0);
    fs::remove_file(&path)?;
    wrote
}

/// Puts a small file into `dir`, durably: after a crash it is there as a whole, or as it was before.
///
/// # Errors
/// What the machine says.
pub fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.new"));
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

/// A directory that no other process may take while this is held.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] fs::File);

/// Name of the file that [`lock`] makes in a directory.
pub const LOCK_FILE: &str = "LOCK";

/// Takes the directory for this process.
///
/// # Errors
/// A sentence that names the directory and who has it.
pub fn lock(dir: &Path) -> Result<Lock, String> {
    let path = dir.join(LOCK_FILE);
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    if file.try_lock().is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let holder = holder.trim();
        let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
        return Err(format!(
            "{} is in use by another process{who}; stop that one first, or use another --data-dir",
            dir.display()
        ));
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.write_all_at(std::process::id().to_string().as_bytes(), 0));
    noted.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(Lock(file))
}

/// Eight random bytes from the kernel.
///
/// # Errors
/// What the machine says.
pub fn random() -> io::Result<u64> {
    let mut word = 0u64;
    // SAFETY: the kernel writes at most the eight bytes it is told of.
    let got = unsafe { libc::getrandom((&raw mut word).cast(), size_of::<u64>(), 0) };
    if got == size_of::<u64>() as isize { Ok(word) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        root.join(format!("host-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_directory_is_made_checked_and_locked_once() {
        let dir = scratch("lock");
        prepare_directory(&dir).unwrap();
        let held = lock(&dir).unwrap();
        let refused = lock(&dir).unwrap_err();
        assert!(refused.contains("in use by another process"), "{refused}");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        lock(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_is_written_whole_over_another() {
        let dir = scratch("whole");
        prepare_directory(&dir).unwrap();
        for text in ["the first, and longer", "the second"] {
            write_whole(&dir, "note", text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn memory_is_no_disk() {
        if !in_memory(Path::new("/dev/shm")).unwrap_or(false) {
            eprintln!("skipped: /dev/shm is not in memory here");
            return;
        }
        let dir = Path::new("/dev/shm").join(format!("ringleader-{}", std::process::id()));
        let refused = prepare_directory(&dir).unwrap_err();
        assert!(refused.contains("tmpfs"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(!allowed_cores().unwrap().is_empty());
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
