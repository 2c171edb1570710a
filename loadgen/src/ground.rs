//! What a folder stands on: the file system, how it is mounted, and the device below.

use std::{
    fs,
    os::{
        linux::fs::MetadataExt,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// What a folder stands on, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    pub(crate) mount: PathBuf,
    pub(crate) filesystem: String,
    pub(crate) options: String,
    source: String,
    pub(crate) device: Option<Device>,
}

/// A block device. What the kernel does not tell is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    model: String,
    pub(crate) rotates: bool,
    pub(crate) scheduler: String,
    /// `write back`: what is written may be lost until the device is told to flush, as a sync does.
    /// `write through`: it has no such cache, or one that survives a power cut.
    pub(crate) write_cache: String,
    /// The devices that it is made of, such as the disks of a RAID or of a volume.
    beneath: Vec<String>,
}

impl Ground {
    /// Of a folder that is there. None where `/proc` does not tell.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let dir = fs::canonicalize(dir).ok()?;
        let device = fs::metadata(&dir).ok()?.st_dev();
        let own = format!("{}:{}", libc::major(device), libc::minor(device));
        let (numbers, mut ground) = find(&fs::read("/proc/self/mountinfo").ok()?, &own, &dir)?;
        ground.device = Device::of(&numbers, &ground.source);
        Some(ground)
    }

    /// Whether it is in memory, so that a sync there has nothing to do.
    pub(crate) fn in_memory(&self) -> bool {
        matches!(self.filesystem.as_str(), "tmpfs" | "ramfs")
    }

    /// In a few words: the file system, where it is from, and what its device is.
    pub(crate) fn brief(&self) -> String {
        let mut text = format!("{} on {}", self.filesystem, self.source);
        if let Some(Device { model, rotates, write_cache, .. }) = &self.device {
            if !model.is_empty() {
                text += &format!(" ({model})");
            }
            text += if *rotates { ", rotational" } else { ", not rotational" };
            if !write_cache.is_empty() {
                text += &format!(", {write_cache}");
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "mount": self.mount.display().to_string(),
            "filesystem": self.filesystem,
            "mount_options": self.options,
            "source": self.source,
            "device": self.device.as_ref().map(Device::json),
        })
    }
}

impl std::fmt::Display for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mount, filesystem, options, source, device } = self;
        write!(f, "{filesystem} on {} ({options})", mount.display())?;
        match device {
            Some(device) => write!(f, ", {device}"),
            None => write!(f, ", from {source}, no block device of its own"),
        }
    }
}

impl Device {
    fn of(numbers: &str, source: &str) -> Option<Self> {
        let own = fs::canonicalize(format!("/sys/dev/block/{numbers}"));
        // File systems that span devices (btrfs) have numbers of their own, and name one of them.
        let named = || {
            let node = fs::canonicalize(source).ok()?;
            fs::canonicalize(Path::new("/sys/class/block").join(node.file_name()?)).ok()
        };
        let mut folder = own.ok().or_else(named)?;
        if folder.join("partition").exists() {
            folder.pop();
        }
        let said = |what: &str| {
            fs::read_to_string(folder.join(what)).unwrap_or_default().trim().to_owned()
        };
        let beneath = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
        let beneath = beneath.map(|one| one.file_name().to_string_lossy().into_owned()).collect();
        Some(Self {
            name: folder.file_name()?.to_string_lossy().into_owned(),
            model: said("device/model"),
            rotates: said("queue/rotational") == "1",
            scheduler: chosen(&said("queue/scheduler")),
            write_cache: said("queue/write_cache"),
            beneath,
        })
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "model": self.model,
            "rotational": self.rotates,
            "scheduler": self.scheduler,
            "write_cache": self.write_cache,
            "beneath": self.beneath,
        })
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, model, scheduler, write_cache, beneath, .. } = self;
        write!(f, "device {name}")?;
        if !model.is_empty() {
            write!(f, " ({model})")?;
        }
        if !beneath.is_empty() {
            write!(f, " over {}", beneath.join(", "))?;
        }
        let known =
            |what: &str| if what.is_empty() { "unknown".to_owned() } else { what.to_owned() };
        write!(f, ", scheduler {}, write cache {}", known(scheduler), known(write_cache))
    }
}

/// `none [mq-deadline] kyber` is `mq-deadline`.
fn chosen(schedulers: &str) -> String {
    let inside = schedulers.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(schedulers, |(one, _)| one).to_owned()
}

/// The mount that a canonical path lies in, and its device's numbers. One of the path's own device if
/// there is one: another, deeper, may not be seen from here. Of those the deepest that is above it,
/// and of several on one folder the last, which hides the others (proc_pid_mountinfo(5)).
fn find(mountinfo: &[u8], own: &str, dir: &Path) -> Option<(String, Ground)> {
    let lines = mountinfo.split(|byte| *byte == b'\n').filter_map(parse);
    let above = lines.filter(|(_, ground)| dir.starts_with(&ground.mount));
    above.max_by_key(|(numbers, ground)| (numbers == own, ground.mount.as_os_str().len()))
}

fn parse(line: &[u8]) -> Option<(String, Ground)> {
    let fields: Vec<_> = line.split(|byte| *byte == b' ').map(unescaped).collect();
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field).into_owned());
    // Optional fields end with a dash of its own.
    let dash = 6 + fields.get(6..)?.iter().position(|field| field == b"-")?;
    let own = text(5)?;
    let of_filesystem = text(dash + 3)?;
    let more = of_filesystem.split(',').filter(|one| !own.split(',').any(|had| had == *one));
    let options = own.split(',').chain(more).collect::<Vec<_>>().join(",");
    let mount = PathBuf::from(std::ffi::OsString::from_vec(fields.get(4)?.clone()));
    let (filesystem, source) = (text(dash + 1)?, text(dash + 2)?);
    Some((text(2)?, Ground { mount, filesystem, options, source, device: None }))
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|digits| {
            u8::from_str_radix(std::ffi::OsStr::from_bytes(digits).to_str()?, 8).ok()
        });
        plain.push(value.unwrap_or(*first));
        rest = if value.is_some() { &more[3..] } else { more };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
22 21 0:20 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1024k
23 21 254:16 / /var/my\\040data rw,noatime shared:7 master:2 - xfs /dev/vdb rw,noquota
24 21 0:31 / /data rw - ext4 /dev/old rw
25 21 0:32 / /data rw - btrfs /dev/vdc rw
";

    fn ground(dir: &str) -> (String, Ground) {
        // A file system that spans devices shows other numbers than its mount.
        find(MOUNTS, "0:99", Path::new(dir)).unwrap()
    }

    #[test]
    fn a_folder_lies_in_the_deepest_mount_above_it() {
        let (numbers, root) = ground("/tmpfiles");
        assert_eq!((numbers.as_str(), root.filesystem.as_str()), ("254:0", "ext4"));
        assert_eq!(root.options, "rw,relatime,discard", "each option once");
        assert!(ground("/tmp/x").1.in_memory() && !root.in_memory());
        let (_, spaced) = ground("/var/my data/etcd");
        assert_eq!((spaced.filesystem.as_str(), spaced.source.as_str()), ("xfs", "/dev/vdb"));
        assert_eq!(ground("/data").1.filesystem, "btrfs", "a later mount hides an earlier one");
    }

    #[test]
    fn of_two_mounts_the_one_of_the_folders_device_counts() {
        let (_, below) = find(MOUNTS, "254:0", Path::new("/tmp/x")).unwrap();
        assert_eq!((below.filesystem.as_str(), below.source.as_str()), ("ext4", "/dev/vda"));
        assert!(find(b"", "254:0", Path::new("/tmp")).is_none());
    }

    #[test]
    fn the_scheduler_in_brackets_is_the_one() {
        assert_eq!(chosen("none [mq-deadline] kyber"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
    }

    #[test]
    fn this_machine_says_what_its_folders_stand_on() {
        let ground = Ground::of(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(!ground.filesystem.is_empty() && ground.options.starts_with('r'));
    }
}
