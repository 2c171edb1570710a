//! CPU time and memory of processes, as `/proc` has them.

use std::{fs, io, time::Duration};

/// Clock ticks a second in `/proc`, the same on every Linux that Rust runs on (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// CPU time in user and kernel mode, of all threads; and of the thread that asks.
#[derive(Clone, Copy, Debug)]
pub struct CpuUse {
    pub(crate) server: Option<Duration>,
    pub(crate) client: Duration,
    pub(crate) thread: Duration,
}

impl CpuUse {
    /// Since this process, and the server's if they are known, began. In steps of 10 ms.
    pub fn now(servers: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let mut server = None;
        for pid in servers {
            *server.get_or_insert(Duration::ZERO) += cpu_time(&pid.to_string())?;
        }
        Ok(Self { server, client: cpu_time("self")?, thread: cpu_time("thread-self")? })
    }

    /// What was used between `before` and now.
    pub fn since(&self, before: &Self) -> Self {
        let server = self.server.zip(before.server).map(|(now, before)| now.saturating_sub(before));
        Self {
            server,
            client: self.client.saturating_sub(before.client),
            thread: self.thread.saturating_sub(before.thread),
        }
    }

    /// Whether what was measured is us and not the server: the thread that asks was busy for nearly
    /// all the time, and the server was not busy with all the CPUs that were left.
    pub(crate) fn is_ours(&self, wall: Duration, cpus: usize) -> bool {
        let busy = |cpu: Duration, of: f64| cpu.as_secs_f64() >= BUSY * of * wall.as_secs_f64();
        let left = (cpus - 1).max(1) as f64;
        wall >= JUDGED_MIN
            && busy(self.thread, 1.0)
            && !self.server.is_some_and(|server| busy(server, left))
    }
}

/// The part of a CPU's time that counts as nearly all.
const BUSY: f64 = 0.8;
/// CPU time is known in steps of 10 ms, so that of a shorter run says nothing.
const JUDGED_MIN: Duration = Duration::from_millis(200);

impl CpuUse {
    /// The server's, per so many of what it did, in microseconds.
    pub(crate) fn server_micros_per(&self, count: u64) -> Option<f64> {
        self.server.map(|cpu| micros_per(cpu, count))
    }

    /// Ours, as [`Self::server_micros_per`].
    pub(crate) fn client_micros_per(&self, count: u64) -> f64 {
        micros_per(self.client, count)
    }
}

pub(crate) fn micros_per(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Memory of a process that no file stands behind, so that nothing can take it back: its heap. What
/// a server maps of its own files is not in it.
pub(crate) fn heap_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = kib.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("{path} has no RssAnon")))
}

fn cpu_time(process: &str) -> io::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::other(format!("{path}: {stat:?}")))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Fields 14 and 15, counted from 1. The second is a name in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?];
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) R 1"), None);
    }

    #[test]
    fn a_busy_client_beside_an_idle_server_is_the_bottleneck() {
        let second = Duration::from_secs(1);
        let used = |client: u64, server: Option<u64>| CpuUse {
            server: server.map(Duration::from_millis),
            client: second,
            thread: Duration::from_millis(client),
        };
        assert!(used(900, Some(500)).is_ours(second, 2));
        assert!(used(900, None).is_ours(second, 2));
        assert!(used(900, Some(900)).is_ours(second, 4), "three were left to the server");
        assert!(!used(900, Some(900)).is_ours(second, 2), "both are busy");
        assert!(!used(700, Some(100)).is_ours(second, 2));
        assert!(!used(900, None).is_ours(Duration::from_millis(50), 2), "too short to say");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = CpuUse::now(Some(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}
