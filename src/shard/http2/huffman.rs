//! Reading strings in HPACK's Huffman code (RFC 7541 §5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive numbers, in the order of their
//! symbols. So the lengths say all, and everything else is computed from them at compile time.
//! Eight bits are looked up at a time; that is enough for all that headers are made of.

/// Bits of the code of each byte, and of [`EOS`].
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

/// The end-of-string symbol, which never stands in a string.
const EOS: u16 = 256;
/// Longest code.
const CODE_BITS_MAX: usize = 30;
/// Bits that one look-up takes in.
const LOOK_BITS: usize = 8;

struct Codes {
    /// By the next [`LOOK_BITS`] bits: the symbol and its bits, or 0 bits where the code is longer.
    short: [(u8, u8); 1 << LOOK_BITS],
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// Per length: the first code, and where its symbols begin.
    first: [u32; CODE_BITS_MAX + 1],
    start: [usize; CODE_BITS_MAX + 2],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        short: [(0, 0); 1 << LOOK_BITS],
        symbols: [0; 257],
        first: [0; CODE_BITS_MAX + 1],
        start: [0; CODE_BITS_MAX + 2],
    };
    let (mut bits, mut at, mut code) = (0, 0, 0u32);
    while bits <= CODE_BITS_MAX {
        code <<= 1;
        codes.first[bits] = code;
        codes.start[bits] = at;
        let mut symbol = 0;
        while symbol < CODE_BITS.len() {
            if CODE_BITS[symbol] as usize == bits {
                codes.symbols[at] = symbol as u16;
                if bits <= LOOK_BITS {
                    let low = LOOK_BITS - bits;
                    let mut look = 0;
                    while look < 1 << low {
                        codes.short[(code as usize) << low | look] = (symbol as u8, bits as u8);
                        look += 1;
                    }
                }
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

/// A string is not in the code: a symbol cut short, the end-of-string symbol, or wrong padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends the decoded string. It may end in up to seven bits that are all ones.
///
/// # Errors
/// [`Malformed`]; what was decoded until then is in `decoded`.
pub fn decode(coded: &[u8], decoded: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = coded.iter();
    // The next bits stand at the top of `bits`; below them are zeros.
    let (mut bits, mut have) = (0u64, 0usize);
    loop {
        while have <= 56
            && let Some(&byte) = rest.next()
        {
            bits |= u64::from(byte) << (56 - have);
            have += 8;
        }
        let (mut symbol, len) = CODES.short[(bits >> (64 - LOOK_BITS)) as usize];
        let mut len = usize::from(len);
        if len == 0 {
            (symbol, len) = long(bits)?;
        }
        if len > have {
            break;
        }
        decoded.push(symbol);
        bits <<= len;
        have -= len;
    }
    let padding = have < 8 && bits.leading_ones() as usize == have;
    if padding { Ok(()) } else { Err(Malformed) }
}

/// A code longer than one look-up. Shorter ones are ruled out, so it is not below the first of its
/// length.
#[cold]
fn long(bits: u64) -> Result<(u8, usize), Malformed> {
    for len in LOOK_BITS + 1..=CODE_BITS_MAX {
        let code = (bits >> (64 - len)) as u32;
        let symbols = &CODES.symbols[CODES.start[len]..CODES.start[len + 1]];
        if let Some(&symbol) = symbols.get((code - CODES.first[len]) as usize) {
            return if symbol == EOS { Err(Malformed) } else { Ok((symbol as u8, len)) };
        }
    }
    Err(Malformed)
}

/// Encodes, for tests: the server itself never does.
#[cfg(test)]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for &byte in text {
        let len = usize::from(CODE_BITS[usize::from(byte)]);
        let symbols = &CODES.symbols[CODES.start[len]..CODES.start[len + 1]];
        let nth = symbols.iter().position(|&symbol| symbol == u16::from(byte)).unwrap();
        bits += &format!("{:0len$b}", CODES.first[len] as usize + nth);
    }
    bits += &"1".repeat((8 - bits.len() % 8) % 8);
    let byte = |bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
    bits.as_bytes().chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_complete() {
        let used: u64 = CODE_BITS.iter().map(|&bits| 1 << (CODE_BITS_MAX as u8 - bits)).sum();
        assert_eq!(used, 1 << CODE_BITS_MAX);
        // Appendix B: '\n' is 0x3ffffffc in 30 bits, 'z' is 0x7b in 7, '<' is 0x7ffc in 15.
        assert_eq!(CODES.first[30], 0x3fff_fffc);
        assert_eq!(encode(b"z"), [0x7b << 1 | 1]);
        assert_eq!(encode(b"<"), [0xff, 0xf9]);
    }

    #[test]
    fn the_examples_of_rfc_7541_c4_and_c6() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", b"no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", b"custom-key"),
            (b"\xae\xc3\x77\x1a\x4b", b"private"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                b"Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (coded, text) in cases {
            assert_eq!(decoded(coded).as_deref(), Ok(text));
            assert_eq!(encode(text), coded);
        }
    }

    #[test]
    fn bad_padding_and_end_of_string_are_refused() {
        assert_eq!(decoded(b""), Ok(vec![]));
        assert_eq!(decoded(b"\xff"), Err(Malformed), "eight bits of padding");
        assert_eq!(decoded(&[0x7b << 1]), Err(Malformed), "padding with a zero");
        assert_eq!(decoded(b"\xff\xff\xff\xff"), Err(Malformed), "the end-of-string symbol");
        assert_eq!(decoded(b"\xff\xf8"), Err(Malformed), "a long code without its end");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encode(&text)), Ok(text));
        }

        #[test]
        fn what_is_decoded_was_encoded_so(coded: Vec<u8>) {
            if let Ok(text) = decoded(&coded) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}
