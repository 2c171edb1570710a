//! HPACK against the examples of RFC 7541 appendix C, and against every kind of broken block.

use super::*;
use proptest::prelude::*;

fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// The dynamic table, newest first.
fn table(decoder: &Decoder) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry = |nth| decoder.table.entry(nth);
    (0..decoder.table.entries.len()).map(|nth| (text(entry(nth).0), text(entry(nth).1))).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn numbers_of_c1() {
    let read = |mut bytes: &[u8], prefix| number(&mut bytes, prefix);
    assert_eq!(read(&[0b0000_1010], 5), Ok(10));
    assert_eq!(read(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5), Ok(1337));
    assert_eq!(read(&[42], 8), Ok(42));
    assert_eq!(read(&[0x1f], 5), Err(Malformed::Short));
    assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x00], 5), Err(Malformed::Number));
}

#[test]
fn each_kind_of_field_of_c2() {
    let mut decoder = Decoder::default();
    let literal = fields(&mut decoder, b"\x40\x0acustom-key\x0dcustom-header").unwrap();
    assert_eq!(literal, pairs(&[("custom-key", "custom-header")]));
    assert_eq!(table(&decoder), literal);
    assert_eq!(decoder.table.size, 55);

    let mut decoder = Decoder::default();
    let path = fields(&mut decoder, b"\x04\x0c/sample/path").unwrap();
    assert_eq!(path, pairs(&[(":path", "/sample/path")]));
    let never = fields(&mut decoder, b"\x10\x08password\x06secret").unwrap();
    assert_eq!(never, pairs(&[("password", "secret")]));
    assert_eq!(fields(&mut decoder, b"\x82").unwrap(), pairs(&[(":method", "GET")]));
    assert_eq!(table(&decoder), []);
    assert_eq!(decoder.version(), 0);
}

#[test]
fn three_requests_of_c3_and_c4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let host = (":authority", "www.example.com");
    let get = (":method", "GET");
    let wanted: [&[(&str, &str)]; 3] = [
        &[get, (":scheme", "http"), (":path", "/"), host],
        &[get, (":scheme", "http"), (":path", "/"), host, ("cache-control", "no-cache")],
        &[
            get,
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ],
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        for (block, wanted) in blocks.iter().zip(wanted) {
            assert_eq!(fields(&mut decoder, &hex(block)).unwrap(), pairs(wanted));
        }
        let newest_first = [("custom-key", "custom-value"), ("cache-control", "no-cache"), host];
        assert_eq!(table(&decoder), pairs(&newest_first));
        assert_eq!(decoder.table.size, 164);
    }
}

/// C.5 and C.6 are the same responses; their table holds 256 bytes, so entries are evicted.
#[test]
fn three_responses_of_c5_and_c6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a
         3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04
         677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49
         553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
         919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
         821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
         4ee5 b106 3d50 07",
    ];
    let (early, late) = ("Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT");
    let location = ("location", "https://www.example.com");
    let private = ("cache-control", "private");
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let wanted: [&[(&str, &str)]; 3] = [
        &[(":status", "302"), private, ("date", early), location],
        &[(":status", "307"), private, ("date", early), location],
        &[
            (":status", "200"),
            private,
            ("date", late),
            location,
            ("content-encoding", "gzip"),
            ("set-cookie", cookie),
        ],
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        decoder.table.resize(256);
        for (block, wanted) in blocks.iter().zip(wanted) {
            assert_eq!(fields(&mut decoder, &hex(block)).unwrap(), pairs(wanted));
        }
        let left = [("set-cookie", cookie), ("content-encoding", "gzip"), ("date", late)];
        assert_eq!(table(&decoder), pairs(&left));
        assert_eq!(decoder.table.size, 215);
    }
}

#[test]
fn broken_blocks_are_refused() {
    let cases: [(&[u8], Malformed); 9] = [
        (b"\x00\x05ab", Malformed::Short),
        (b"\x00", Malformed::Short),
        (b"\x40\x01a", Malformed::Short),
        (b"\xff\xff\xff\xff\xff\x01", Malformed::Number),
        (b"\xbe", Malformed::Index(62)),
        (b"\x80", Malformed::Index(0)),
        (b"\x7f\x00\x01a", Malformed::Index(63)),
        (b"\x00\x81\xff\x00", Malformed::Huffman),
        (b"\x3f\xe2\x1f", Malformed::TableSize(4097)),
    ];
    for (block, wanted) in cases {
        assert_eq!(fields(&mut Decoder::default(), block), Err(wanted), "{block:x?}");
    }
    let late = fields(&mut Decoder::default(), b"\x82\x20");
    assert_eq!(late, Err(Malformed::TableSize(0)), "a size that does not begin the block");
}

#[test]
fn a_smaller_table_forgets_and_an_entry_too_large_empties_it() {
    let mut decoder = Decoder::default();
    fields(&mut decoder, b"\x40\x01a\x01b\x40\x01c\x01d").unwrap();
    // 34 bytes an entry: one is left.
    fields(&mut decoder, b"\x3f\x09").unwrap();
    assert_eq!(table(&decoder), pairs(&[("c", "d")]));
    fields(&mut decoder, b"\x40\x01e\x09too large").unwrap();
    assert_eq!(table(&decoder), []);
    assert_eq!(decoder.table.size, 0);
    assert_eq!(fields(&mut decoder, b"\xbe"), Err(Malformed::Index(62)));
}

/// RFC 7541 §4.4: the name may come from the very entry that the new one pushes out.
#[test]
fn an_entry_may_be_named_by_the_one_that_evicts_it() {
    let mut decoder = Decoder::default();
    fields(&mut decoder, b"\x3f\x0b\x40\x03abc\x03def").unwrap();
    let renamed = fields(&mut decoder, b"\x7e\x03xyz").unwrap();
    assert_eq!(renamed, pairs(&[("abc", "xyz")]));
    assert_eq!(table(&decoder), renamed);
}

#[test]
fn the_version_changes_with_the_table_only() {
    let mut decoder = Decoder::default();
    let mut version_after = |block: &[u8]| {
        fields(&mut decoder, block).unwrap();
        decoder.version()
    };
    let inserted = version_after(b"\x40\x01a\x01b");
    assert_eq!(version_after(b"\xbe\x82\x00\x01x\x01y"), inserted);
    let resized = version_after(b"\x20");
    assert_ne!(resized, inserted);
}

proptest! {
    #[test]
    fn random_blocks_never_panic_and_keep_the_table_bounded(blocks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for block in blocks {
            if decoder.decode(&block, |_, _| {}).is_err() {
                break;
            }
            prop_assert!(decoder.table.size <= HTTP2_HEADER_TABLE_BYTES);
        }
    }

    /// The table's one buffer against a plain list of entries.
    #[test]
    fn the_table_is_the_one_of_the_rfc(
        steps in prop::collection::vec((0usize..80, 0usize..600, prop::option::weighted(0.2, 0usize..4096)), 1..200),
    ) {
        let mut table = Table::default();
        let mut model: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (nth, len, resize) in steps {
            let value = vec![nth as u8; len];
            let name = match model.get(nth) {
                Some((name, _)) => {
                    let name = name.clone();
                    table.insert(Name::Entry(nth), &value);
                    name
                }
                None => {
                    let name = vec![len as u8; nth];
                    table.insert(Name::Literal(&name), &value);
                    name
                }
            };
            model.insert(0, (name, value));
            for bytes in [table.size_max].into_iter().chain(resize) {
                table.resize(bytes);
                while model.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>() > bytes {
                    model.pop();
                }
            }
            prop_assert_eq!(table.entries.len(), model.len());
            prop_assert!(table.bytes.len() <= 3 * HTTP2_HEADER_TABLE_BYTES);
            for (nth, (name, value)) in model.iter().enumerate() {
                prop_assert_eq!(table.entry(nth), (&name[..], &value[..]));
            }
        }
    }
}
