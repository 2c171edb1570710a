//! What the kernel says of this process, from `/proc`.
#![allow(unsafe_code)]

/// A process in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_files: u64,
    /// Most descriptors.
    pub open_files_max: u64,
    /// Start, seconds since the Unix epoch.
    pub start_seconds: f64,
}

/// What the kernel says now; `None` where `/proc` is not to be read.
pub fn usage() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    // The name in brackets may hold anything, brackets too; fields are counted after it (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse::<f64>().ok()?;
    let most = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let (ticks, page) = (config(libc::_SC_CLK_TCK), config(libc::_SC_PAGESIZE));
    Some(Usage {
        resident_bytes: (field(24)? * page) as u64,
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        open_files_max: most.split_whitespace().nth(3)?.parse().unwrap_or(u64::MAX),
        start_seconds: boot + field(22)? / ticks,
    })
}

/// Gives memory that was freed back to the machine, which the allocator would keep. Takes milliseconds, and
/// whoever wants memory waits meanwhile.
pub fn give_memory_back() {
    // SAFETY: takes a number; what is in use stays where it is.
    #[cfg(target_env = "gnu")]
    let _some = unsafe { libc::malloc_trim(0) } == 1;
}

/// How often this thread has waited for a page of memory to come from a disk.
pub fn major_faults() -> u64 {
    // SAFETY: the struct is plain numbers, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_THREAD, &mut usage) != 0 {
            return 0;
        }
        usage
    };
    usage.ru_majflt.cast_unsigned()
}

fn config(name: libc::c_int) -> f64 {
    // SAFETY: takes a number and returns one.
    unsafe { libc::sysconf(name) as f64 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_files_and_a_past() {
        let usage = super::usage().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.open_files >= 3);
        assert!(usage.open_files_max >= usage.open_files && usage.start_seconds > 1.0e9);
    }
}
