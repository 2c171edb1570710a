//! Pages, byte for byte: built, edited, searched.

use super::*;

fn page_of<'a>(bytes: &'a mut [u8], keys: &[&[u8]]) -> PageMut<'a> {
    let entries: Vec<_> = keys.iter().map(|&key| leaf_entry(key)).collect();
    PageMut::build(bytes, 0, 1, &entries);
    PageMut::new(bytes)
}

fn leaf_entry(key: &[u8]) -> Entry<'_> {
    Entry { key, body: b"cell", live: true }
}

fn keys<'a>(page: &'a PageMut<'_>) -> Vec<&'a [u8]> {
    page.page().entries().map(|entry| entry.key).collect()
}

#[test]
fn keys_whose_heads_are_equal_keep_their_order() {
    let mut bytes = [0; 512];
    let sorted: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"\0\0\0\0\0", b"\0\0\0\0\0\0", b"\x01"];
    let mut page = page_of(&mut bytes, &[]);
    for key in [3, 0, 5, 2, 4, 1].map(|at| sorted[at]) {
        let at = page.page().position(key).expect_err("each key is new");
        assert!(page.insert(at, &leaf_entry(key)));
    }
    assert_eq!(keys(&page), sorted);
    for (at, key) in sorted.iter().enumerate() {
        assert_eq!(page.page().find(key), Some(at));
    }
}

#[test]
fn a_key_outside_the_prefix_shortens_it() {
    let mut bytes = [0; 512];
    let mut page = page_of(&mut bytes, &[b"/registry/pods/a", b"/registry/pods/b"]);
    assert_eq!(page.page().prefix(), b"/registry/pods/".len());
    assert!(page.insert(0, &leaf_entry(b"/registry/leases/x")));
    assert_eq!(page.page().prefix(), b"/registry/".len());
    assert!(page.insert(3, &leaf_entry(b"/s")));
    assert_eq!(page.page().prefix(), 1);
    for (at, key) in keys(&page).into_iter().enumerate() {
        assert_eq!(page.page().position(key), Ok(at));
    }
}

#[test]
fn a_key_that_only_looks_alike_after_the_prefix_is_not_found() {
    let mut bytes = [0; 512];
    let page = page_of(&mut bytes, &[b"aab", b"aac"]);
    assert_eq!(page.page().find(b"zzb"), None);
    assert_eq!(page.page().find(b"a"), None);
    assert_eq!(page.page().position(b"zzb"), Err(2));
    assert_eq!(page.page().position(b"a"), Err(0));
    assert_eq!(page.page().position(b"Zab"), Err(0));
}

#[test]
fn a_full_page_refuses_and_stays_as_it_was() {
    let mut bytes = [0; 128];
    let mut page = page_of(&mut bytes, &[b"a", b"b"]);
    assert!(page.insert(2, &leaf_entry(b"c")));
    let before = page.page().bytes().to_vec();
    assert!(!page.insert(3, &leaf_entry(b"d, for which there is no room any more")));
    assert_eq!(page.page().bytes(), before);
}

#[test]
fn a_wider_page_has_the_same_entries_and_room_for_more() {
    let keys: [&[u8]; 3] = [b"/a", b"/b", b"/c"];
    let entries = keys.map(|key| Entry { key, body: b"cell", live: key != b"/b" });
    let mut packed = vec![0; bytes_for(0, &entries).next_multiple_of(LINE_BYTES)];
    PageMut::build(&mut packed, 0, 7, &entries);
    let files = Files::NONE;
    let packed = Page::new(&packed, &files);
    let mut bytes = [0xa5; 512];
    PageMut::widen(&mut bytes, packed, 8);
    let mut wide = PageMut::new(&mut bytes);
    assert!(wide.page().entries().eq(packed.entries()));
    assert_eq!((wide.page().version(), wide.page().prefix()), (8, packed.prefix()));
    assert_eq!(wide.page().used_bytes(), packed.used_bytes());
    assert!(wide.insert(3, &leaf_entry(&[b'/'; 300])));
    assert_eq!(wide.page().entries().take(3).collect::<Vec<_>>(), entries);
}

#[test]
fn removed_bytes_are_not_in_use() {
    let mut bytes = [0; 256];
    let mut page = page_of(&mut bytes, &[b"a", b"bb", b"c"]);
    let entries = [leaf_entry(b"a"), leaf_entry(b"c")];
    page.remove(1);
    assert_eq!(keys(&page), [b"a", b"c"]);
    assert_eq!(page.page().used_bytes(), bytes_for(0, &entries));
}

#[test]
fn a_branch_cell_is_aligned_and_says_what_lies_below() {
    let mut bytes = [0; 256];
    let child =
        |n| Child { link: Link::in_memory(n as usize), count: Count { live: n, cells: n + 1 } };
    let bodies = [child(1).encode(), child(2).encode()];
    let entries = [
        Entry { key: b"odd", body: &bodies[0], live: false },
        Entry { key: b"r", body: &bodies[1], live: false },
    ];
    PageMut::build(&mut bytes, 1, 1, &entries);
    let mut page = PageMut::new(&mut bytes);
    page.set_child(1, child(9));
    assert_eq!(page.page().child(0), child(1));
    assert_eq!(page.page().child(1), child(9));
    assert_eq!(page.page().count_before(2), Count { live: 10, cells: 12 });
    for at in 0..2 {
        assert_eq!(page.offset(at) % BRANCH_CELL_ALIGN, 0);
    }
    for (key, at) in [(&b"a"[..], 0), (b"odd", 0), (b"q", 0), (b"r", 1), (b"z", 1)] {
        assert_eq!(page.page().child_for(key), at);
    }
}

#[test]
fn the_first_key_of_a_branch_makes_way_for_a_smaller_second() {
    let mut bytes = [0; 256];
    let body = Child { link: Link::in_memory(1), count: Count::default() }.encode();
    let entry = |key| Entry { key, body: &body, live: false };
    PageMut::build(&mut bytes, 1, 1, &[entry(&b"pods/m"[..]), entry(b"pods/t")]);
    let mut page = PageMut::new(&mut bytes);
    for (second, first) in [(&b"pods/f"[..], &b"pods/"[..]), (b"pods/", b"pods"), (b"p", b"")] {
        page.make_way(second);
        assert_eq!(page.page().key(0), first);
        assert_eq!(page.page().position(second), Err(1));
        let shortened = [entry(first), entry(b"pods/t")];
        assert_eq!(page.page().used_bytes(), bytes_for(1, &shortened));
    }
}

#[test]
#[should_panic(expected = "a link leads to a page that is alive")]
fn bytes_that_are_no_page_are_noticed() {
    whole_bytes(&[0xdd; HEADER_BYTES]);
}

#[allow(dead_code, reason = "the test of the documents reads more of it")]
#[path = "../../../tests/formats/byte_map.rs"]
mod byte_map;

#[test]
fn fields_lie_where_the_page_of_formats_says() {
    let header = byte_map::ByteMap::of("Tree page");
    let fields = [
        ("magic", MAGIC_AT),
        ("page bytes", BYTES_AT),
        ("version", VERSION_AT),
        ("level", LEVEL_AT),
        ("entries", LEN_AT),
        ("prefix", PREFIX_AT),
        ("top", TOP_AT),
        ("dead", DEAD_AT),
        ("zero", ZERO_AT),
        ("slots", HEADER_BYTES),
    ];
    fields.iter().for_each(|(field, at)| assert_eq!(header.place(field).start, *at, "{field}"));
    let slot = byte_map::ByteMap::of("Slot");
    let slots = [slot.place("head").start, slot.place("cell offset").start, slot.end()];
    assert_eq!(slots, [HEAD_AT, OFFSET_AT, SLOT_BYTES]);
    let cell = byte_map::ByteMap::of("Cell");
    let cells = ["key bytes", "body bytes", "body"].map(|field| cell.place(field).start);
    assert_eq!(cells, [KEY_BYTES_AT, BODY_BYTES_AT, BODY_AT]);
    let child = byte_map::ByteMap::of("Body of a branch's cell");
    let children = ["link", "live", "cells", "crc"].map(|field| child.place(field).start);
    assert_eq!(children, [LINK_AT, LIVE_AT, CELLS_AT, CRC_AT]);
    assert_eq!(child.end(), CHILD_BYTES);

    let mut bytes = vec![0; 256];
    PageMut::build(&mut bytes, 3, 9, &[]);
    let found = ["magic", "page bytes", "version", "level"].map(|f| header.number(&bytes, f));
    assert_eq!(found, [u64::from(u32::from_le_bytes(*b"RLGP")), 256, 9, 3]);
}
