//! Service records by DNS (RFC 1035, RFC 2782), because the standard library looks up addresses only.
//!
//! Servers and search list are those of `resolv.conf(5)`. A query goes by UDP without extensions, and
//! again by TCP where the answer was cut off. Messages are written and read by the `simple-dns` crate.
#![allow(clippy::disallowed_methods, reason = "a start waits for the world, and is not simulated")]

use crate::{
    io::host,
    limits::{
        DNS_ATTEMPTS_MAX, DNS_DATAGRAM_BYTES_MAX, DNS_SEARCH_MAX, DNS_SERVERS_MAX,
        DNS_TIMEOUT_SECONDS_MAX,
    },
};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, rdata::RData};
use std::{
    fmt, fs,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// Where the flags of a message are, and the one that says that it was cut off (RFC 1035 §4.1.1).
const FLAGS_AT: usize = 2;
const TRUNCATED: u8 = 0b10;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The lowest is to be tried first.
    pub priority: u16,
    /// The host, a name of letters, digits, `-`, `_` and dots.
    pub target: String,
    /// The TCP port.
    pub port: u16,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    /// A name with fewer dots is tried with the search list first.
    dots: usize,
    /// For one try.
    timeout: Duration,
    attempts: u32,
}

/// Why there are no records.
#[derive(Debug, PartialEq, Eq)]
enum Nothing {
    /// The server says that there are none.
    NoSuchName,
    /// It did not say; another may.
    NoAnswer(String),
}

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("no such host"),
            Self::NoAnswer(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Nothing {
    fn from(error: io::Error) -> Self {
        Self::NoAnswer(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "i/o timeout".into(),
            _ => error.to_string(),
        })
    }
}

impl Resolver {
    /// The machine's.
    ///
    /// # Errors
    /// That its file cannot be read.
    pub fn of_machine() -> Result<Self, String> {
        match fs::read_to_string(RESOLV_CONF) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::parse("")),
            Err(error) => Err(format!("open {RESOLV_CONF}: {error}")),
        }
    }

    /// Reads `resolv.conf(5)`. What it does not know it passes over.
    fn parse(text: &str) -> Self {
        let timeout = Duration::from_secs(5);
        let (servers, search) = (Vec::new(), Vec::new());
        let mut found = Self { servers, search, dots: 1, timeout, attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            match key {
                "nameserver" => {
                    found.servers.extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok()));
                }
                // The last of these lines counts.
                "search" | "domain" => found.search = words.map(str::to_owned).collect(),
                "options" => words.for_each(|option| found.option(option)),
                _ => {}
            }
        }
        found.servers.truncate(DNS_SERVERS_MAX);
        found.search.truncate(DNS_SEARCH_MAX);
        if found.servers.is_empty() {
            found.servers = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        found
    }

    fn option(&mut self, option: &str) {
        let Some((name, Ok(number))) = option.split_once(':').map(|(n, v)| (n, v.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.dots = number.min(15) as usize,
            "timeout" => {
                let seconds = u64::from(number).clamp(1, DNS_TIMEOUT_SECONDS_MAX);
                self.timeout = Duration::from_secs(seconds);
            }
            "attempts" => self.attempts = number.clamp(1, DNS_ATTEMPTS_MAX),
            _ => {}
        }
    }

    /// The names to ask for, in this order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let whole = format!("{name}.");
        let longer =
            self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_matches('.')));
        match name.matches('.').count() >= self.dots {
            true => [whole].into_iter().chain(longer).collect(),
            false => longer.chain([whole]).collect(),
        }
    }

    /// The records of a service, `_etcd-server._tcp.example.com`: by priority, then by host.
    ///
    /// # Errors
    /// As Go says it: which name, which server, what it said.
    pub fn services(&self, name: &str) -> Result<Vec<Record>, String> {
        let mut last = String::new();
        for candidate in self.candidates(name) {
            match self.ask_all(&candidate) {
                Ok(mut records) => {
                    records.sort();
                    return Ok(records);
                }
                // Another domain may have it whatever was wrong with this one, as for Go.
                Err((server, why)) => last = format!("lookup {name} on {server}: {why}"),
            }
        }
        Err(last)
    }

    fn ask_all(&self, name: &str) -> Result<Vec<Record>, (SocketAddr, Nothing)> {
        let mut failed = None;
        for _ in 0..self.attempts {
            for ip in &self.servers {
                let server = SocketAddr::new(*ip, PORT);
                match ask(server, name, self.timeout) {
                    Err(why @ Nothing::NoAnswer(_)) => failed = Some((server, why)),
                    answer => return answer.map_err(|why| (server, why)),
                }
            }
        }
        Err(failed.expect("there is a server, and it was asked"))
    }
}

fn ask(server: SocketAddr, name: &str, timeout: Duration) -> Result<Vec<Record>, Nothing> {
    let id = (host::random()? & 0xffff) as u16;
    let query = query(id, name).map_err(Nothing::NoAnswer)?;
    let end = Instant::now() + timeout;
    if let Some(found) = by_udp(server, id, name, &query, end)? {
        return found;
    }
    let answer = by_tcp(server, &query, Instant::now() + timeout)?;
    match read(&answer, id, name) {
        Some(found) => found,
        None => Err(Nothing::NoAnswer("the answer is of another question, or none".into())),
    }
}

type Found = Result<Vec<Record>, Nothing>;

/// The first datagram that answers; others may be late, or somebody's guess. `None` where the answer
/// was cut off.
fn by_udp(
    server: SocketAddr,
    id: u16,
    name: &str,
    query: &[u8],
    end: Instant,
) -> Result<Option<Found>, Nothing> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut bytes = [0; DNS_DATAGRAM_BYTES_MAX];
    loop {
        socket.set_read_timeout(Some(left(end)?))?;
        let count = socket.recv(&mut bytes)?;
        let answer = &bytes[..count];
        if was_cut(answer, id) {
            return Ok(None);
        }
        if let Some(found) = read(answer, id, name) {
            return Ok(Some(found));
        }
    }
}

/// Two bytes of length go ahead of each message (RFC 1035 §4.2.2).
fn by_tcp(server: SocketAddr, query: &[u8], end: Instant) -> Result<Vec<u8>, Nothing> {
    let mut socket = TcpStream::connect_timeout(&server, left(end)?)?;
    let length = u16::try_from(query.len()).expect("a query has one name");
    socket.set_write_timeout(Some(left(end)?))?;
    socket.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    read_by(&mut socket, &mut length, end)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read_by(&mut socket, &mut answer, end)?;
    Ok(answer)
}

fn read_by(socket: &mut TcpStream, mut rest: &mut [u8], end: Instant) -> Result<(), Nothing> {
    while !rest.is_empty() {
        socket.set_read_timeout(Some(left(end)?))?;
        match socket.read(rest)? {
            0 => return Err(Nothing::NoAnswer("the connection ended before the answer".into())),
            count => rest = &mut rest[count..],
        }
    }
    Ok(())
}

fn left(end: Instant) -> Result<Duration, Nothing> {
    match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Nothing::NoAnswer("i/o timeout".into())),
        left => Ok(left),
    }
}

// ── messages ────────────────────────────────────────────────────────────────────────────────────

fn question(name: &str) -> Result<Question<'_>, String> {
    let name = Name::new(name).map_err(|error| format!("{name}: no name for DNS: {error}"))?;
    Ok(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false))
}

fn query(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question(name)?);
    packet.build_bytes_vec().map_err(|error| format!("{name}: no name for DNS: {error}"))
}

/// Whether a message is an answer that did not fit. Its records may end anywhere, so only its head is
/// looked at.
fn was_cut(bytes: &[u8], id: u16) -> bool {
    bytes.starts_with(&id.to_be_bytes())
        && bytes.get(FLAGS_AT).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// What a message says to this question; `None` where it is none, or says something else.
fn read(bytes: &[u8], id: u16, name: &str) -> Option<Found> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = question(name).ok()?;
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.first().is_some_and(|said| said.qname == asked.qname);
    is_ours.then(|| match packet.rcode() {
        RCODE::NoError => records(&packet),
        RCODE::NameError => Err(Nothing::NoSuchName),
        _ => Err(Nothing::NoAnswer("server misbehaving".into())),
    })
}

/// No records are no such name (Go's `errNoSuchHost`). A target of `.` says that the service is not
/// offered (RFC 2782); one that is no host name is passed over, as Go does.
fn records(packet: &Packet<'_>) -> Found {
    let services = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(service) => Some(Record {
            priority: service.priority,
            target: service.target.to_string(),
            port: service.port,
        }),
        _ => None,
    });
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = |record: &Record| {
        record.target.chars().all(is_host) && record.target.contains(|c| c != '.')
    };
    let records: Vec<Record> = services.filter(named).collect();
    if records.is_empty() { Err(Nothing::NoSuchName) } else { Ok(records) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::fuzz;
    use simple_dns::{ResourceRecord, rdata::SRV};

    const NAME: &str = "_etcd-server._tcp.example.com.";

    /// What a name server says: its code, and hosts with their ports.
    fn said(id: u16, name: &str, rcode: RCODE, hosts: &[(&str, u16)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        packet.set_flags(PacketFlag::RESPONSE);
        *packet.rcode_mut() = rcode;
        packet.questions.push(question(name).unwrap());
        for (host, port) in hosts {
            let target = Name::new(host).unwrap();
            let service = SRV { priority: 1, weight: 2, port: *port, target };
            let owner = Name::new(name).unwrap();
            packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, RData::SRV(service)));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn the_machine_s_file_is_read_as_the_manual_says() {
        let text = "# x\nnameserver 10.0.0.1\nnameserver fe80::1\nnameserver junk\nnameserver \
                    10.0.0.2\nnameserver 10.0.0.3\ndomain d\nsearch a.b c.\noptions ndots:5 rotate \
                    timeout:900 attempts:0 ndots:x\nsortlist 1";
        let found = Resolver::parse(text);
        assert_eq!(found.servers.len(), DNS_SERVERS_MAX);
        assert_eq!(found.servers[1], "fe80::1".parse::<IpAddr>().unwrap());
        assert_eq!((found.dots, found.attempts), (5, 1));
        assert_eq!(found.timeout, Duration::from_secs(DNS_TIMEOUT_SECONDS_MAX));
        assert_eq!(found.candidates("_x._tcp.d"), ["_x._tcp.d.a.b.", "_x._tcp.d.c.", "_x._tcp.d."]);
        assert_eq!(found.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(found.candidates("a."), ["a."]);
        let none = Resolver::parse("");
        assert_eq!(none.servers, [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]);
        assert_eq!(none.candidates("a.b"), ["a.b."]);
    }

    #[test]
    fn an_answer_counts_when_it_answers_the_question() {
        let hosts = [("b.example.com", 2), ("a.example.com", 1), (".", 3), ("a\\ b", 4)];
        let answer = said(7, NAME, RCODE::NoError, &hosts);
        let found = read(&answer, 7, NAME).unwrap().unwrap();
        let targets: Vec<_> = found.iter().map(|r| (r.target.as_str(), r.port)).collect();
        assert_eq!(targets, [("b.example.com", 2), ("a.example.com", 1)]);
        assert_eq!(read(&answer, 8, NAME), None, "another id");
        assert_eq!(read(&answer, 7, "_etcd-server._tcp.example.org."), None, "another name");
        assert!(read(&answer, 7, &NAME.to_uppercase()).is_some(), "names have no case");
        assert_eq!(read(&query(7, NAME).unwrap(), 7, NAME), None, "a query answers nothing");
        let none = |rcode, hosts: &[_]| read(&said(7, NAME, rcode, hosts), 7, NAME).unwrap();
        assert_eq!(none(RCODE::NoError, &[]), Err(Nothing::NoSuchName));
        assert_eq!(none(RCODE::NoError, &[(".", 1)]), Err(Nothing::NoSuchName));
        assert_eq!(none(RCODE::NameError, &[]), Err(Nothing::NoSuchName));
        assert_eq!(
            none(RCODE::ServerFailure, &[]),
            Err(Nothing::NoAnswer("server misbehaving".into()))
        );
        assert!(query(7, &"x".repeat(64)).is_err(), "a label has 63 letters");
    }

    #[test]
    fn an_answer_that_was_cut_off_is_asked_for_again_by_tcp() {
        let mut cut = said(7, NAME, RCODE::NoError, &[("a.example.com", 1)]);
        cut.truncate(20);
        assert_eq!((read(&cut, 7, NAME), was_cut(&cut, 7)), (None, false));
        cut[FLAGS_AT] |= TRUNCATED;
        assert!(was_cut(&cut, 7) && !was_cut(&cut, 8) && !was_cut(&cut[..2], 7));
    }

    #[test]
    fn names_that_point_in_circles_end() {
        // A head, one question, and a name that points at itself (RFC 1035 §4.1.4).
        let mut circle = vec![0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 33, 0, 1];
        assert_eq!(read(&circle, 7, NAME), None);
        circle[12..14].copy_from_slice(&[0xc0, 0xff]);
        assert_eq!(read(&circle, 7, NAME), None);
    }

    #[test]
    fn no_bytes_of_a_name_server_make_it_panic() {
        let hosts = [("b.example.com", 2), ("a.example.com", 1), ("x.y.z", 3)];
        let valid = said(7, NAME, RCODE::NoError, &hosts);
        fuzz("answers of name servers", |dice| {
            let mut bytes = valid.clone();
            dice.spoil(&mut bytes);
            drop(read(&bytes, 7, NAME));
        });
    }
}
