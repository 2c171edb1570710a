//! What a request's headers say: is it a well-formed gRPC call, and which one (RFC 9113 §8.2, §8.3).

use super::{frame::Goaway, frame::Reason, hpack::Decoder, hpack::ENTRY_BYTES};
use crate::limits::{HTTP2_BLOCK_SEEN_BYTES_MAX, HTTP2_BLOCKS_SEEN_MAX, HTTP2_HEADER_BYTES_MAX};
use std::{rc::Rc, time::Duration};

/// What the request's headers say, as far as anybody here cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The client wants an error rather than a wait when nobody leads (`hasleader: true`).
    pub requires_leader: bool,
    /// A token came along; without authentication it is ignored (etcd behaviour).
    pub has_token: bool,
    /// How long the client waits (`grpc-timeout`); one that is none is passed over.
    pub timeout: Option<Duration>,
}

/// The headers of a request that keeps to HTTP's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// `:path`: the method that is called.
    pub path: Rc<str>,
    /// What else the server cares about.
    pub metadata: Metadata,
    /// Whether it is a gRPC call at all.
    pub kind: Kind,
    /// `content-length`, which the body must then have.
    pub body_bytes: Option<u64>,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A gRPC call.
    Grpc,
    /// A gRPC call whose request is a stream of messages.
    GrpcStream,
    /// Not POST: 405 (grpc-go).
    NotPost,
    /// Another content type: 415 (grpc-go).
    NotGrpc,
    /// More headers than we take: 431 (RFC 6585 §5).
    TooLarge,
}

/// A request that breaks HTTP's rules: its stream is reset (§8.1.1). Names the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads the header blocks of one connection. Clients say the same few blocks again and again, so
/// these are remembered with their meaning.
#[derive(Default)]
pub struct Heads {
    decoder: Decoder,
    /// The decoder's version when everything in `seen` was read.
    version: u64,
    seen: Vec<(Box<[u8]>, RequestHead)>,
    seen_next: usize,
    /// Paths asked for lately, to be shared rather than made again.
    paths: Vec<Rc<str>>,
    paths_next: usize,
}

impl Heads {
    /// Reads the header block that opens a request. `takes_stream` is asked about its path, and
    /// answers the same each time.
    ///
    /// # Errors
    /// The connection cannot go on: nobody knows the header table any more.
    pub fn request(
        &mut self,
        block: &[u8],
        takes_stream: fn(&str) -> bool,
    ) -> Result<Result<RequestHead, Malformed>, Goaway> {
        if self.version == self.decoder.version()
            && let Some((_, head)) = self.seen.iter().find(|(seen, _)| **seen == *block)
        {
            return Ok(Ok(head.clone()));
        }
        let before = self.decoder.version();
        let mut fields = Fields::default();
        self.decode(block, |name, value| fields.add(name, value))?;
        let share = |path: &str| share(&mut self.paths, &mut self.paths_next, path);
        let head = fields.head(takes_stream, share);
        if let Ok(head) = &head
            && before == self.decoder.version()
            && block.len() <= HTTP2_BLOCK_SEEN_BYTES_MAX
        {
            self.remember(block, head.clone());
        }
        Ok(head)
    }

    /// Reads the header block that ends a request's body (§8.1).
    ///
    /// # Errors
    /// As [`Heads::request`].
    pub fn trailers(&mut self, block: &[u8]) -> Result<Result<(), Malformed>, Goaway> {
        let mut fields = Fields::default();
        self.decode(block, |name, value| match name {
            [b':', ..] => fields.wrong("a pseudo-header in trailers"),
            _ => fields.add(name, value),
        })?;
        Ok(fields.broken.map_or(Ok(()), |rule| Err(Malformed(rule))))
    }

    /// Reads a header block only because the table must stay right.
    ///
    /// # Errors
    /// As [`Heads::request`].
    pub fn skip(&mut self, block: &[u8]) -> Result<(), Goaway> {
        self.decode(block, |_, _| {})
    }

    fn decode(&mut self, block: &[u8], on: impl FnMut(&[u8], &[u8])) -> Result<(), Goaway> {
        let why = "a header block cannot be read";
        let goaway = |_| Goaway { reason: Reason::Compression, why };
        self.decoder.decode(block, on).map_err(goaway)
    }

    fn remember(&mut self, block: &[u8], head: RequestHead) {
        if self.version != self.decoder.version() {
            self.version = self.decoder.version();
            self.seen.clear();
        }
        put_in_turn(&mut self.seen, &mut self.seen_next, (block.into(), head));
    }
}

/// Fills `list` up to its bound, then replaces its items one after another.
fn put_in_turn<T>(list: &mut Vec<T>, next: &mut usize, item: T) {
    if list.len() < HTTP2_BLOCKS_SEEN_MAX {
        return list.push(item);
    }
    *next = (*next + 1) % HTTP2_BLOCKS_SEEN_MAX;
    list[*next] = item;
}

fn share(paths: &mut Vec<Rc<str>>, next: &mut usize, path: &str) -> Rc<str> {
    if let Some(known) = paths.iter().find(|known| ***known == *path) {
        return known.clone();
    }
    let path: Rc<str> = path.into();
    if path.len() <= HTTP2_BLOCK_SEEN_BYTES_MAX {
        put_in_turn(paths, next, path.clone());
    }
    path
}

/// Header fields as they come in.
#[derive(Default)]
struct Fields {
    method: Option<bool>,
    path: Option<Vec<u8>>,
    scheme: bool,
    authority: bool,
    regular: bool,
    content_type: Option<bool>,
    leader: Option<bool>,
    has_token: bool,
    timeout: Option<Duration>,
    body_bytes: Option<u64>,
    /// Size of the list, as the RFC counts it (§6.5.2).
    bytes: usize,
    broken: Option<&'static str>,
}

impl Fields {
    fn wrong(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.bytes += name.len() + value.len() + ENTRY_BYTES;
        if self.bytes > HTTP2_HEADER_BYTES_MAX as usize {
            return;
        }
        if !is_value(value) {
            self.wrong("a header's value holds a line break");
        }
        if let [b':', pseudo @ ..] = name {
            return self.add_pseudo(pseudo, value);
        }
        self.regular = true;
        match name {
            b"content-type" => _ = self.content_type.get_or_insert(is_grpc(value)),
            b"hasleader" => _ = self.leader.get_or_insert(value == b"true"),
            b"token" | b"authorization" => self.has_token = true,
            b"grpc-timeout" => self.timeout = read_timeout(value),
            b"user-agent" | b"grpc-accept-encoding" => {}
            b"te" if value == b"trailers" => {}
            b"te" => self.wrong("te is not trailers"),
            b"content-length" => match parse(value) {
                Some(bytes) if self.body_bytes.is_none_or(|before| before == bytes) => {
                    self.body_bytes = Some(bytes);
                }
                _ => self.wrong("content-length is no number, or two"),
            },
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => self.wrong("a header of HTTP/1.1's connections"),
            _ if is_name(name) => {}
            _ => self.wrong("a header's name holds upper case, or no name at all"),
        }
    }

    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) {
        let again = match name {
            b"method" => self.method.replace(value == b"POST").is_some(),
            b"path" => self.path.replace(value.to_vec()).is_some(),
            b"scheme" => std::mem::replace(&mut self.scheme, true),
            b"authority" => std::mem::replace(&mut self.authority, true),
            _ => return self.wrong("an unknown pseudo-header"),
        };
        if again || self.regular {
            self.wrong("a pseudo-header twice, or behind the others");
        }
    }

    fn head(
        &self,
        takes_stream: fn(&str) -> bool,
        share: impl FnOnce(&str) -> Rc<str>,
    ) -> Result<RequestHead, Malformed> {
        let metadata = Metadata {
            requires_leader: self.leader == Some(true),
            has_token: self.has_token,
            timeout: self.timeout,
        };
        let body_bytes = self.body_bytes;
        if self.bytes > HTTP2_HEADER_BYTES_MAX as usize {
            return Ok(RequestHead { path: "".into(), metadata, kind: Kind::TooLarge, body_bytes });
        }
        if let Some(rule) = self.broken {
            return Err(Malformed(rule));
        }
        let (Some(post), Some(path), true) = (self.method, &self.path, self.scheme) else {
            return Err(Malformed("a request without method, scheme or path"));
        };
        let path = std::str::from_utf8(path).map_err(|_| Malformed("a path that is no text"))?;
        if path.is_empty() {
            return Err(Malformed("an empty path"));
        }
        let kind = match self.content_type {
            _ if !post => Kind::NotPost,
            Some(true) if takes_stream(path) => Kind::GrpcStream,
            Some(true) => Kind::Grpc,
            _ => Kind::NotGrpc,
        };
        Ok(RequestHead { path: share(path), metadata, kind, body_bytes })
    }
}

/// `application/grpc`, alone or with a format or parameters behind it (gRPC over HTTP/2).
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|next| matches!(next, b'+' | b';')))
}

/// One to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn read_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) =
        value.split_last().filter(|(_, digits)| (1..=8).contains(&digits.len()))?;
    let count = parse(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn parse(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// A token in lower case (§8.2.1, RFC 9110 §5.6.2).
fn is_name(name: &[u8]) -> bool {
    let token =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

/// No NUL, CR or LF (§8.2.1). Blanks at either end are let pass, as grpc-go does.
fn is_value(value: &[u8]) -> bool {
    // Without an early exit this is a handful of vector instructions.
    !value.iter().fold(false, |any, byte| any | matches!(byte, 0 | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: [(&str, &str); 6] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "here"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];

    fn literal(block: &mut Vec<u8>, first: u8, name: &str, value: &str) {
        block.push(first);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte of length");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }

    fn takes_stream(path: &str) -> bool {
        path == "/a.B/Stream"
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| literal(&mut block, 0, name, value));
        block
    }

    fn read(fields: &[(&str, &str)]) -> Result<RequestHead, Malformed> {
        Heads::default().request(&block(fields), takes_stream).unwrap()
    }

    fn with(extra: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
        CALL.into_iter().chain([extra]).collect()
    }

    #[test]
    fn a_call_is_read() {
        let head = read(&CALL).unwrap();
        assert_eq!((&*head.path, head.kind, head.body_bytes), ("/a.B/C", Kind::Grpc, None));
        assert_eq!(head.metadata, Metadata::default());
        let led = read(&with(("hasleader", "true"))).unwrap().metadata;
        assert_eq!(led, Metadata { requires_leader: true, ..Metadata::default() });
        assert!(!read(&with(("hasleader", "TRUE"))).unwrap().metadata.requires_leader);
        assert!(read(&with(("token", "x"))).unwrap().metadata.has_token);
        assert!(read(&with(("authorization", "x"))).unwrap().metadata.has_token);
        assert_eq!(read(&with(("content-length", "17"))).unwrap().body_bytes, Some(17));
    }

    #[test]
    fn how_long_a_client_waits_is_read_in_every_unit() {
        let timeout = |value| read(&with(("grpc-timeout", value))).unwrap().metadata.timeout;
        for (value, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4999m", 4_999_000_000),
            ("99999999u", 99_999_999_000),
            ("0n", 0),
        ] {
            assert_eq!(timeout(value), Some(Duration::from_nanos(nanos)), "{value}");
        }
        for value in ["", "1", "m", "123456789m", "1s", "-1S", "1.5S", " 1S"] {
            assert_eq!(timeout(value), None, "{value}");
        }
    }

    #[test]
    fn what_is_no_call_is_told_apart() {
        let kind = |at: usize, value| {
            let mut fields = CALL;
            fields[at].1 = value;
            read(&fields).unwrap().kind
        };
        assert_eq!(kind(0, "GET"), Kind::NotPost);
        assert_eq!(kind(4, "application/grpc+proto"), Kind::Grpc);
        assert_eq!(kind(4, "application/grpc;charset=x"), Kind::Grpc);
        assert_eq!(kind(2, "/a.B/Stream"), Kind::GrpcStream);
        assert_eq!(kind(4, "application/grpc-web"), Kind::NotGrpc);
        assert_eq!(kind(4, "application/json"), Kind::NotGrpc);
        assert_eq!(read(&CALL[..4]).unwrap().kind, Kind::NotGrpc);
    }

    #[test]
    fn malformed_requests_are_refused_by_rule() {
        let cases = [
            (("X-Upper", "x"), "upper case"),
            (("", "x"), "no name"),
            (("a b", "x"), "no name"),
            (("x", "a\r\nb"), "line break"),
            (("x", "a\0b"), "line break"),
            (("connection", "close"), "HTTP/1.1"),
            (("transfer-encoding", "chunked"), "HTTP/1.1"),
            (("te", "gzip"), "te is not"),
            (("content-length", "-1"), "content-length"),
            (("content-length", ""), "content-length"),
            ((":path", "/late"), "behind the others"),
            ((":status", "200"), "unknown pseudo"),
        ];
        for (extra, rule) in cases {
            let Malformed(why) = read(&with(extra)).unwrap_err();
            assert!(why.contains(rule), "{extra:?}: {why}");
        }
        for missing in 0..3 {
            let mut fields = CALL.to_vec();
            fields.remove(missing);
            assert_eq!(read(&fields).unwrap_err().0, "a request without method, scheme or path");
        }
        let twice = [&CALL[..1], &CALL[..]].concat();
        assert!(read(&twice).unwrap_err().0.contains("twice"));
    }

    #[test]
    fn trailers_hold_no_pseudo_headers() {
        let trailers = |fields: &[_]| Heads::default().trailers(&block(fields)).unwrap();
        assert_eq!(trailers(&[("x", "y")]), Ok(()));
        assert_eq!(trailers(&[(":path", "y")]), Err(Malformed("a pseudo-header in trailers")));
        assert!(trailers(&[("X", "y")]).is_err());
    }

    #[test]
    fn a_list_too_large_is_told_and_the_table_stays_right() {
        let mut heads = Heads::default();
        let mut all = block(&CALL);
        literal(&mut all, 0x40, "x-long", &"v".repeat(100));
        all.extend(std::iter::repeat_n(0xbe, 600));
        assert_eq!(heads.request(&all, takes_stream).unwrap().unwrap().kind, Kind::TooLarge);
        let mut after = block(&CALL);
        after.push(0xbe);
        assert_eq!(heads.request(&after, takes_stream).unwrap().unwrap().kind, Kind::Grpc);
    }

    /// The same bytes mean something else once the table has moved on.
    #[test]
    fn remembered_blocks_are_forgotten_when_the_table_changes() {
        let mut heads = Heads::default();
        let mut first = block(&CALL[..2]);
        literal(&mut first, 0x40, ":path", "/first");
        first.extend(block(&CALL[3..]));
        heads.request(&first, takes_stream).unwrap().unwrap();

        let mut indexed = block(&CALL[..2]);
        indexed.push(0xbe);
        indexed.extend(block(&CALL[3..]));
        let path = |heads: &mut Heads| heads.request(&indexed, takes_stream).unwrap().unwrap().path;
        assert_eq!(&*path(&mut heads), "/first");
        assert_eq!(heads.seen.len(), 1);
        assert_eq!(&*path(&mut heads), "/first");

        let mut second = block(&CALL[..2]);
        literal(&mut second, 0x40, ":path", "/second");
        second.extend(block(&CALL[3..]));
        heads.request(&second, takes_stream).unwrap().unwrap();
        assert_eq!(&*path(&mut heads), "/second");
        assert_eq!(&*path(&mut heads), "/second");
        heads.request(b"\x20\x88", takes_stream).unwrap().unwrap_err();
        assert!(heads.request(&indexed, takes_stream).is_err(), "the table is empty");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut heads = Heads::default();
        for nth in 0..3 * HTTP2_BLOCKS_SEEN_MAX {
            let mut fields = CALL;
            let path = format!("/{nth}");
            fields[2].1 = &path;
            assert_eq!(*heads.request(&block(&fields), takes_stream).unwrap().unwrap().path, *path);
        }
        assert_eq!(
            (heads.seen.len(), heads.paths.len()),
            (HTTP2_BLOCKS_SEEN_MAX, HTTP2_BLOCKS_SEEN_MAX)
        );
    }
}
