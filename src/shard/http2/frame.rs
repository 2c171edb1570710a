//! The frames of HTTP/2 as bytes (RFC 9113 §4 and §6). Pure.
//!
//! ```text
//! 0        3      4       5                   9
//! ┌────────┬──────┬───────┬───────────────────┬─────────────
//! │ length │ kind │ flags │ 1 bit 0, stream   │ payload …     (numbers are big endian)
//! └────────┴──────┴───────┴───────────────────┴─────────────
//! ```

use std::fmt;

/// What every client sends first (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes in front of each payload (§4.1).
pub const HEAD_BYTES: usize = 9;
/// Largest payload that we accept and that any peer must: the default (§6.5.2).
pub const FRAME_BYTES_MAX: usize = 16_384;
/// Largest payload that a peer may ask for (§6.5.2).
pub const FRAME_BYTES_LEGAL_MAX: usize = (1 << 24) - 1;
/// Both sides' windows before anybody says otherwise (§6.9.2).
pub const WINDOW_DEFAULT: i64 = 65_535;
/// No window is ever larger (§6.9.1).
pub const WINDOW_MAX: i64 = (1 << 31) - 1;
/// Where a stream's number stands in a frame's head.
pub const STREAM_AT: usize = 5;

/// Kinds of frames (§6).
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (§6).
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Numbers of settings (§6.5.2).
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub mod setting {
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (§7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub enum Reason {
    NoError = 0,
    Protocol = 1,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// Why a connection ends: what goes into a GOAWAY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goaway {
    /// The error code.
    pub reason: Reason,
    /// Debug data: the rule that was broken.
    pub why: &'static str,
}

impl Goaway {
    /// A rule of the protocol was broken.
    pub const fn protocol(why: &'static str) -> Self {
        Self { reason: Reason::Protocol, why }
    }

    /// A frame's length cannot be right (§4.2).
    pub const fn size(why: &'static str) -> Self {
        Self { reason: Reason::FrameSize, why }
    }

    /// A bound of ours was passed.
    pub const fn calm(why: &'static str) -> Self {
        Self { reason: Reason::EnhanceYourCalm, why }
    }
}

impl fmt::Display for Goaway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.reason, self.why)
    }
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload.
    pub len: usize,
    /// One of [`kind`], or unknown.
    pub kind: u8,
    /// Bits of [`flag`], and others without meaning.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Reads a head, refusing what is larger than we said we accept (§4.2).
    pub fn read(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Goaway> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        if len > FRAME_BYTES_MAX {
            return Err(Goaway::size("a frame is larger than SETTINGS_MAX_FRAME_SIZE"));
        }
        Ok(Self { len, kind, flags, stream })
    }

    /// Whether a flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame's head and payload, and what follows it.
pub type Split<'a> = (Head, &'a [u8], &'a [u8]);

/// Takes the first frame off `input`. `None` while it is not whole.
pub fn split(input: &[u8]) -> Result<Option<Split<'_>>, Goaway> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let head = Head::read(head)?;
    Ok(rest.split_at_checked(head.len).map(|(payload, rest)| (head, payload, rest)))
}

/// A payload without its padding (§6.1). Padding as long as the payload is an error.
pub fn unpad(head: Head, payload: &[u8]) -> Result<&[u8], Goaway> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&pad, rest) = payload.split_first().ok_or(Goaway::size("no room for a pad length"))?;
    let len = rest.len().checked_sub(pad as usize);
    Ok(&rest[..len.ok_or(Goaway::protocol("padding is longer than the frame"))?])
}

/// The four bytes of an RST_STREAM or a WINDOW_UPDATE (§6.4, §6.9).
pub fn word(payload: &[u8]) -> Result<u32, Goaway> {
    let bytes: [u8; 4] = payload
        .try_into()
        .map_err(|_| Goaway::size("RST_STREAM and WINDOW_UPDATE have four bytes"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Appends a head.
pub fn put_head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(len <= FRAME_BYTES_LEGAL_MAX, "a payload's length has 24 bits");
    let [_, l0, l1, l2] = (len as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]);
}

/// Appends an RST_STREAM or a WINDOW_UPDATE.
pub fn put_word(out: &mut Vec<u8>, kind: u8, stream: u32, word: u32) {
    put_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&word.to_be_bytes());
}

/// Appends a SETTINGS frame.
pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_head(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a GOAWAY that names `last` as the last stream taken (§6.8).
pub fn put_goaway(out: &mut Vec<u8>, last: u32, goaway: Goaway) {
    put_head(out, 8 + goaway.why.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(goaway.reason as u32).to_be_bytes());
    out.extend_from_slice(goaway.why.as_bytes());
}

/// Appends a header block, in as many frames as the peer's largest one asks for (§6.10).
pub fn put_headers(
    out: &mut Vec<u8>,
    stream: u32,
    block: &[u8],
    end: bool,
    frame_bytes_max: usize,
) {
    let end_stream = if end { flag::END_STREAM } else { 0 };
    let mut parts = block.chunks(frame_bytes_max).peekable();
    let (mut kind, mut flags) = (kind::HEADERS, end_stream);
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= flag::END_HEADERS;
        }
        put_head(out, part.len(), kind, flags, stream);
        out.extend_from_slice(part);
        (kind, flags) = (kind::CONTINUATION, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back_as_written() {
        let mut out = Vec::new();
        put_head(&mut out, 0x1234, kind::HEADERS, flag::END_HEADERS, 0x7fff_fffe);
        let head = Head::read(out.first_chunk().unwrap()).unwrap();
        let (kind, flags) = (kind::HEADERS, flag::END_HEADERS);
        assert_eq!(head, Head { len: 0x1234, kind, flags, stream: 0x7fff_fffe });
        out[5] |= 0x80; // reserved, ignored
        assert_eq!(Head::read(out.first_chunk().unwrap()), Ok(head));
    }

    #[test]
    fn a_frame_is_split_off_only_when_whole() {
        let mut out = Vec::new();
        put_word(&mut out, kind::RST_STREAM, 3, 8);
        put_head(&mut out, 0, kind::DATA, 0, 5);
        for cut in 0..13 {
            assert_eq!(split(&out[..cut]), Ok(None));
        }
        let (head, payload, rest) = split(&out).unwrap().unwrap();
        assert_eq!((head.stream, word(payload)), (3, Ok(8)));
        assert_eq!(split(rest).unwrap().unwrap().0.stream, 5);
    }

    #[test]
    fn padding_is_taken_off() {
        let padded = Head { len: 0, kind: kind::DATA, flags: flag::PADDED, stream: 1 };
        assert_eq!(unpad(padded, b"\x02ab\0\0"), Ok(&b"ab"[..]));
        assert_eq!(unpad(padded, b"\x02\0\0"), Ok(&b""[..]));
        assert_eq!(unpad(padded, b"\x03\0\0").unwrap_err().reason, Reason::Protocol);
        assert_eq!(unpad(padded, b"").unwrap_err().reason, Reason::FrameSize);
        assert_eq!(unpad(Head { flags: 0, ..padded }, b"\x02"), Ok(&b"\x02"[..]));
    }

    #[test]
    fn a_long_header_block_goes_on_in_continuations() {
        let mut out = Vec::new();
        put_headers(&mut out, 7, &[9; 25], true, 10);
        let mut seen = Vec::new();
        let mut rest = &out[..];
        while let Some((head, _, after)) = split(rest).unwrap() {
            seen.push((head.kind, head.flags, head.len, head.stream));
            rest = after;
        }
        let (first, more) = (kind::HEADERS, kind::CONTINUATION);
        let last = flag::END_HEADERS;
        assert_eq!(seen, [(first, flag::END_STREAM, 10, 7), (more, 0, 10, 7), (more, last, 5, 7)]);
    }
}
