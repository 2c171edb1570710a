//! A database eight times larger than the memory that the server may use.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use e2e::{
    Dice, binary,
    server::{Folder, Server, Setup},
};
use loadgen::client::Client;
use proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse, kv};
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

const MEMORY_BYTES: u64 = 384 << 20;
const VALUE_BYTES: u64 = 128 << 10;
const KEYS: u64 = 8 * MEMORY_BYTES / VALUE_BYTES;
const WRITERS: u64 = 4;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A control group with a limit on memory; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// None, and a line that says so, where the machine lets us make none.
    fn new(name: &str) -> Option<Self> {
        let name = format!("ringleader-{name}-{}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let places = [(first, "memory.limit_in_bytes"), (second, "memory.max")];
        let made = places.into_iter().find_map(|(root, limit)| {
            let group = Self(root.join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), MEMORY_BYTES.to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            eprintln!("skipped: no control group with a limit on memory can be made here");
        }
        made
    }

    /// What starts a program in the group.
    fn wrapper(&self) -> [String; 3] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        ["sh".into(), "-c".into(), script]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        for _ in 0..100 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(50));
                }
                _ => return,
            }
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key/{number:08}").into_bytes()
}

/// Tells its key, and does not compress.
fn value(number: u64) -> Vec<u8> {
    let mut dice = Dice::new(number);
    (0..VALUE_BYTES / 8).flat_map(|_| dice.number().to_le_bytes()).collect()
}

fn put(client: &mut Client, number: u64) {
    let put =
        PutRequest { key: key(number).into(), value: value(number).into(), ..Default::default() };
    client.unary::<_, PutResponse>(kv::PUT, &put).expect("it takes a put");
}

fn assert_there(client: &mut Client, number: u64) {
    let get = RangeRequest { key: key(number).into(), ..Default::default() };
    let got: RangeResponse = client.unary(kv::RANGE, &get).expect("it answers");
    assert_eq!(got.kvs.len(), 1, "key {number}");
    assert!(got.kvs[0].value == value(number), "the value of key {number}");
}

/// Each of a few clients at once does this with its share of the numbers.
fn together(server: &Server, work: impl Fn(&mut Client, u64) + Sync) {
    thread::scope(|scope| {
        for first in 0..WRITERS {
            let (work, mut client) = (&work, server.client());
            client.set_timeout(WAIT_MAX);
            scope.spawn(move || {
                (first..KEYS)
                    .step_by(WRITERS as usize)
                    .for_each(|number| work(&mut client, number));
            });
        }
    });
}

#[test]
fn a_database_eight_times_larger_than_memory_is_served() {
    let Some(group) = Group::new("memory") else { return };
    let folder = Folder::new("memory");
    let setup = Setup::new(&binary::ringleader(), folder.path()).wrapper(group.wrapper());
    let quota = format!("--quota-backend-bytes={}", 4 * KEYS * VALUE_BYTES);
    let setup = setup.flags([quota]);
    let mut server = setup.start().expect("it starts");
    together(&server, put);
    // One in sixteen, from all over, while others write.
    together(&server, |client, number| {
        if number % 16 == 0 {
            assert_there(client, (number * 7919) % KEYS);
        } else if number % 64 == 1 {
            put(client, number);
        }
    });
    server.kill();
    let server = setup.start().expect("it starts again");
    let mut client = server.client();
    client.set_timeout(WAIT_MAX);
    let all = RangeRequest {
        key: "key/".into(),
        range_end: "key0".into(),
        count_only: true,
        ..Default::default()
    };
    let counted: RangeResponse = client.unary(kv::RANGE, &all).expect("it answers");
    assert_eq!(counted.count, KEYS as i64);
    (0..KEYS).step_by(97).for_each(|number| assert_there(&mut client, number));
}
