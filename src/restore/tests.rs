//! What is asked for, and what is in the way.

use super::{
    args::{Asked, Order, read},
    free,
};
use crate::types::{ClusterId, MemberId};
use std::{fs, path::Path};

fn asked(line: &str) -> Result<Asked, String> {
    read(line.split_whitespace().map(Into::into))
}

fn ordered(line: &str) -> Order {
    match asked(line) {
        Ok(Asked::Restore(order)) => *order,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_line_says_what_is_asked() {
    let order = ordered("d -to-revision=7 --out n --wal-dir w");
    assert_eq!((order.places.dir, order.places.wal_dir), ("d".into(), Some("w".into())));
    assert_eq!((order.revision.0, order.out, &*order.name), (7, "n".into(), "default"));
    assert_eq!(order.skipped, 0);
    let bumped = ordered("d --to-revision 7 --bump-revision 1000 --mark-compacted --out n");
    assert_eq!((bumped.revision.0, bumped.skipped), (7, 1000));
    assert_eq!(asked("d --help"), Ok(Asked::Help));
}

#[test]
fn a_line_that_makes_no_sense_is_told_why() {
    for (line, why) in [
        ("", "which directory?"),
        ("d", "to which revision? --to-revision tells"),
        ("d --to-revision 5", "where to? --out tells"),
        ("a b", "b: one directory at a time"),
        ("d --to-revision", "--to-revision needs a value"),
        ("d --out n --to-revision x", "--to-revision=x: a number above 0 is needed"),
        ("d --out n --to-revision 0", "--to-revision=0: a number above 0 is needed"),
        ("d --out n --out m", "--out is given twice"),
        ("d --to-revision 1 --bump-revision -1", "--bump-revision=-1: a number above 0 is needed"),
        ("d --to-revision 1 --bump-revision 1", "--bump-revision and --mark-compacted go together"),
        ("d --to-revision 1 --mark-compacted", "--bump-revision and --mark-compacted go together"),
        ("d --data-dir n", "there is no --data-dir"),
    ] {
        assert_eq!(asked(line), Err(why.into()), "{line}");
    }
}

/// Everybody who restores the same for the same members is in the same new cluster, whatever the old
/// one was called; and nobody is in the old one.
#[test]
fn a_restored_member_is_of_another_cluster() {
    let old = ClusterId(0xc1);
    let born = |line: &str| ordered(&format!("d --out n {line}")).newborn(old);
    let alone = born("--to-revision 7").expect("it makes sense");
    assert_eq!(alone.members.len(), 1);
    assert_eq!((&*alone.members[0].name, alone.member), ("default", alone.members[0].id));
    assert_eq!(born("--to-revision 7"), Ok(alone.clone()));
    let others = [
        born("--to-revision 8"),
        born("--to-revision 7 --initial-advertise-peer-urls http://localhost:1"),
        born("--to-revision 7 --initial-cluster-token other"),
        ordered("d --out n --to-revision 7").newborn(ClusterId(0xc2)),
    ];
    for other in others {
        let other = other.expect("it makes sense");
        assert!(other.cluster != alone.cluster && other.member != alone.member);
    }
    let line = "--to-revision 7 --initial-cluster-token t";
    let taken = born(line).expect("it makes sense").cluster;
    let refused = ordered(&format!("d --out n {line}")).newborn(taken).expect_err("it is d's own");
    assert!(refused.contains("--initial-cluster-token has to be another one"), "{refused}");
    assert_ne!(alone.member, MemberId(0));
}

#[test]
fn nothing_may_be_in_the_way() {
    let name = format!("restore-free-{}", std::process::id());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
    let out = root.join("new");
    assert_eq!(free(&out), Ok(root.join("new.restoring")));
    fs::create_dir_all(&out).unwrap();
    assert_eq!(free(&out), Ok(root.join("new.restoring")));
    fs::create_dir(root.join("new.restoring")).unwrap();
    assert!(free(&out).unwrap_err().contains("did not come to its end"));
    fs::write(out.join("a"), "").unwrap();
    assert!(free(&out).unwrap_err().contains("is not empty"));
    assert!(free(&out.join("a")).unwrap_err().contains("Not a directory"));
    assert!(free(Path::new("/")).is_err());
    fs::remove_dir_all(&root).unwrap();
}
