//! Header compression (RFC 7541), as much as a gRPC client needs.
//!
//! We send literals only, and tell the server with `SETTINGS_HEADER_TABLE_SIZE` = 0 to keep no
//! dynamic table. So there is no state between blocks: equal headers are equal bytes. What may
//! still come is the static table, literals plain or Huffman-coded, and an update of the table's
//! size to 0.

use std::fmt;

/// Why a header block could not be read. The connection is lost with it (RFC 7541 §4.3).
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The block ends inside a field.
    Short,
    /// A number of more than 28 bits.
    Number,
    /// An index outside the static table.
    Index(usize),
    /// The server keeps a dynamic table although it was told not to.
    TableSize(usize),
    /// A Huffman string that ends in no code, or holds the end-of-string symbol (§5.2).
    Huffman,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "header block ends inside a field"),
            Self::Number => write!(f, "number too large in a header block"),
            Self::Index(index) => write!(f, "header index {index} is not in the static table"),
            Self::TableSize(size) => write!(f, "dynamic table of {size} bytes, 0 were allowed"),
            Self::Huffman => write!(f, "broken Huffman string in a header block"),
        }
    }
}

/// Appends a field as a literal without indexing, name and value in plain bytes (§6.2.2).
pub fn encode_literal(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        encode_number(text.len(), block);
        block.extend_from_slice(text.as_bytes());
    }
}

/// Appends `:method: POST` and `:scheme: http`, which the static table holds as a whole.
pub fn encode_post_over_http(block: &mut Vec<u8>) {
    block.extend_from_slice(&[0x80 | 3, 0x80 | 6]);
}

/// A length, in a prefix of seven bits whose eighth says "not Huffman" (§5.1).
fn encode_number(mut number: usize, block: &mut Vec<u8>) {
    if number < 127 {
        return block.push(number as u8);
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

/// Calls `each` with the name and value of every field of a whole block, in order.
pub fn decode(block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Malformed> {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        match first {
            0x80.. => {
                let (name, value) = indexed(number(&mut rest, 7)?)?;
                each(name.as_bytes(), value.as_bytes());
            }
            // With incremental indexing: into a table of no bytes, which keeps nothing (§4.4).
            0x40..=0x7f => literal(&mut rest, 6, &mut each)?,
            0x20..=0x3f => match number(&mut rest, 5)? {
                0 => {}
                size => return Err(Malformed::TableSize(size)),
            },
            // Without indexing, and never to be indexed.
            0x00..=0x1f => literal(&mut rest, 4, &mut each)?,
        }
    }
    Ok(())
}

fn literal(
    rest: &mut &[u8],
    prefix_bits: u32,
    each: &mut impl FnMut(&[u8], &[u8]),
) -> Result<(), Malformed> {
    let mut decoded = Vec::new();
    let name = match number(rest, prefix_bits)? {
        0 => text(rest)?,
        index => Text::Plain(indexed(index)?.0.as_bytes()),
    };
    let value = text(rest)?;
    let name = name.bytes(&mut decoded)?;
    let mut decoded = Vec::new();
    each(name, value.bytes(&mut decoded)?);
    Ok(())
}

fn indexed(index: usize) -> Result<(&'static str, &'static str), Malformed> {
    index.checked_sub(1).and_then(|at| STATIC.get(at)).copied().ok_or(Malformed::Index(index))
}

enum Text<'a> {
    Plain(&'a [u8]),
    Huffman(&'a [u8]),
}

impl<'a> Text<'a> {
    fn bytes(self, decoded: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Huffman(coded) => {
                huffman(coded, decoded)?;
                Ok(decoded)
            }
        }
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<Text<'a>, Malformed> {
    let coded = rest.first().ok_or(Malformed::Short)? & 0x80 != 0;
    let length = number(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(Malformed::Short)?;
    *rest = after;
    Ok(if coded { Text::Huffman(bytes) } else { Text::Plain(bytes) })
}

/// A number that begins in the low `prefix_bits` of a byte (§5.1).
fn number(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, Malformed> {
    let mut next = || {
        let (&first, after) = rest.split_first().ok_or(Malformed::Short)?;
        *rest = after;
        Ok(usize::from(first))
    };
    let mask = (1 << prefix_bits) - 1;
    let mut number = next()? & mask;
    if number < mask {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed::Number)
}

/// The end-of-string symbol, which never stands in a string.
const EOS: u16 = 256;

/// Bits of the code of each byte, and of [`EOS`] (RFC 7541 appendix B). The code is canonical: codes
/// of one length are consecutive, in the order of the symbols. So the lengths say all.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Longest code.
const CODE_BITS_MAX: usize = 30;

/// The symbols in the order of their codes, and per length the first code and where its symbols
/// begin.
struct Codes {
    symbols: [u16; 257],
    first: [u32; CODE_BITS_MAX + 1],
    start: [usize; CODE_BITS_MAX + 2],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes =
        Codes { symbols: [0; 257], first: [0; CODE_BITS_MAX + 1], start: [0; CODE_BITS_MAX + 2] };
    let (mut bits, mut at, mut code) = (0, 0, 0);
    while bits <= CODE_BITS_MAX {
        code <<= 1;
        codes.first[bits] = code;
        codes.start[bits] = at;
        let mut symbol = 0;
        while symbol < CODE_BITS.len() {
            if CODE_BITS[symbol] as usize == bits {
                codes.symbols[at] = symbol as u16;
                at += 1;
                code += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    codes.start[bits] = at;
    codes
}

/// Decodes a whole string. It may end in up to seven bits that are all ones (§5.2).
fn huffman(coded: &[u8], decoded: &mut Vec<u8>) -> Result<(), Malformed> {
    let (mut code, mut bits) = (0u32, 0usize);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        bits += 1;
        if bits > CODE_BITS_MAX {
            return Err(Malformed::Huffman);
        }
        let symbols = &CODES.symbols[CODES.start[bits]..CODES.start[bits + 1]];
        // Shorter codes are done with, so this one is not below the first of its length.
        if let Some(&symbol) = symbols.get((code - CODES.first[bits]) as usize) {
            if symbol == EOS {
                return Err(Malformed::Huffman);
            }
            decoded.push(symbol as u8);
            (code, bits) = (0, 0);
        }
    }
    if bits < 8 && code == (1 << bits) - 1 { Ok(()) } else { Err(Malformed::Huffman) }
}

/// RFC 7541 appendix A, from index 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decode(block, |name, value| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    fn unhuffman(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut decoded = Vec::new();
        huffman(coded, &mut decoded).map(|()| decoded)
    }

    #[test]
    fn what_we_encode_we_decode() {
        let long = "v".repeat(1000);
        let mut block = Vec::new();
        encode_post_over_http(&mut block);
        encode_literal("te", "trailers", &mut block);
        encode_literal("x-long", &long, &mut block);
        let wanted = [
            pair(":method", "POST"),
            pair(":scheme", "http"),
            pair("te", "trailers"),
            pair("x-long", &long),
        ];
        assert_eq!(fields(&block).unwrap(), wanted);
    }

    #[test]
    fn the_examples_of_rfc_7541() {
        // C.2.1 to C.2.4: each kind of field.
        assert_eq!(
            fields(b"\x40\x0acustom-key\x0dcustom-header").unwrap(),
            [pair("custom-key", "custom-header")]
        );
        assert_eq!(fields(b"\x04\x0c/sample/path").unwrap(), [pair(":path", "/sample/path")]);
        assert_eq!(fields(b"\x10\x08password\x06secret").unwrap(), [pair("password", "secret")]);
        assert_eq!(fields(b"\x82").unwrap(), [pair(":method", "GET")]);
        // C.4.1 and C.6.1: Huffman.
        assert_eq!(
            unhuffman(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(),
            b"www.example.com"
        );
        assert_eq!(unhuffman(b"\xae\xc3\x77\x1a\x4b").unwrap(), b"private");
        let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff";
        assert_eq!(unhuffman(date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn the_code_is_complete() {
        let used: u64 = CODE_BITS.iter().map(|&bits| 1 << (CODE_BITS_MAX as u8 - bits)).sum();
        assert_eq!(used, 1 << CODE_BITS_MAX);
        // Appendix B: '\n' is 0x3ffffffc in 30 bits, 'z' is 0x7b in 7.
        assert_eq!(CODES.first[30], 0x3fff_fffc);
        assert_eq!(unhuffman(&[0x7b << 1 | 1]).unwrap(), b"z");
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert_eq!(fields(b"\x00\x05ab"), Err(Malformed::Short));
        assert_eq!(fields(b"\xff\xff\xff\xff\xff\x01"), Err(Malformed::Number));
        assert_eq!(fields(b"\xbe"), Err(Malformed::Index(62)));
        assert_eq!(fields(b"\x80"), Err(Malformed::Index(0)));
        assert_eq!(fields(b"\x3f\xe1\x1f"), Err(Malformed::TableSize(4096)));
        assert_eq!(fields(b"\x20\x88").unwrap(), [pair(":status", "200")]);
        // Padding of eight bits, padding with a zero, the end-of-string symbol.
        assert_eq!(unhuffman(b"\xff"), Err(Malformed::Huffman));
        assert_eq!(unhuffman(&[0x7b << 1]), Err(Malformed::Huffman));
        assert_eq!(unhuffman(b"\xff\xff\xff\xff"), Err(Malformed::Huffman));
    }
}
