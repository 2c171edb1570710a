//! The log on the real disk; all that a disk may do wrong is tried in the simulator.

use super::*;
use crate::io::thread::{Lane, LaneDisk, Priority};
use futures_lite::future::block_on;
use std::path::Path;

fn batch(index: u64) -> Batch {
    let data = Bytes::from(vec![index as u8; 5000]);
    let entries = vec![LogEntry { index, term: 1, kind: 0, data }];
    Batch { entries, hard_state: HardState { term: 1, vote: 1, commit: index - 1 } }
}

#[test]
fn a_log_on_the_real_disk_comes_back_whole() {
    // Not in `/tmp`, which may be memory and know no O_DIRECT.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target")
        .join(format!("wal-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let disk = |name| LaneDisk::new(Lane::start(name, Priority::Normal).unwrap(), root.clone());
    let options = |salt| Options { segment_bytes: 65_536, cluster: 1, member: 2, salt };
    block_on(async {
        let (mut wal, found) = Wal::open(disk("log"), disk("fill"), options(7)).await.unwrap();
        assert_eq!((found.entries.len(), found.torn), (0, None));
        for pair in 0..20 {
            if let Some(work) = wal.prepare() {
                wal.prepared(work.await.unwrap());
            }
            let first = wal.append(&batch(2 * pair + 1)).unwrap();
            let second = wal.append(&batch(2 * pair + 2)).unwrap();
            let both = futures_lite::future::zip(second, first).await;
            assert_eq!((both.1.unwrap(), both.0.unwrap()), (2 * pair + 1, 2 * pair + 2));
        }
    });
    let (wal, found) = block_on(Wal::open(disk("log"), disk("fill"), options(8))).unwrap();
    assert_eq!((wal.durable_frame(), wal.last_index(), found.torn), (40, 40, None));
    assert_eq!(found.hard_state, batch(40).hard_state);
    let expected: Vec<LogEntry> = (1..=40).flat_map(|index| batch(index).entries).collect();
    assert_eq!(found.entries, expected);
    std::fs::remove_dir_all(&root).unwrap();
}
