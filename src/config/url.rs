//! A URL as etcd takes it: a scheme, a host and a port, or the path of a socket.

use std::{fmt, net::IpAddr};

/// How a listener or a peer is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// TCP without TLS.
    Http,
    /// TCP with TLS.
    Https,
    /// A Unix socket without TLS.
    Unix,
    /// A Unix socket with TLS.
    Unixs,
}

/// An address in one of etcd's flags. Prints as it was typed; sorts as it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Name or IP address, an IPv6 one without its brackets; for a socket, its path.
    pub host: String,
    /// TCP port, 0 for one the machine chooses; 0 for a socket.
    pub port: u16,
    text: String,
}

impl Url {
    /// Reads one URL by the rules of etcd's `types.NewURLs`: no path, always a port.
    ///
    /// # Errors
    /// etcd's sentence where etcd has one. Ours are: no query, fragment or user (etcd takes them
    /// and forgets them), and a port that is a port.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let text = typed.trim();
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return Err(format!("parse {text:?}: invalid character in URL"));
        }
        let (scheme, rest) = split_scheme(text)?;
        match scheme.as_str() {
            "http" => Self::with_authority(Scheme::Http, text, rest),
            "https" => Self::with_authority(Scheme::Https, text, rest),
            "unix" => Ok(Self::socket(Scheme::Unix, text, rest)),
            "unixs" => Ok(Self::socket(Scheme::Unixs, text, rest)),
            _ => Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
    }

    /// Reads URLs between commas; sorted, each once. No text is no URLs.
    ///
    /// # Errors
    /// That of the first URL that is wrong.
    pub fn parse_list(typed: &str) -> Result<Vec<Self>, String> {
        let mut urls = match typed {
            "" => Vec::new(),
            _ => typed.split(',').map(Self::parse).collect::<Result<_, _>>()?,
        };
        urls.sort_by(|a, b| a.text.cmp(&b.text));
        urls.dedup();
        Ok(urls)
    }

    /// A TCP URL of this scheme, host and port.
    pub fn of(scheme: Scheme, host: IpAddr, port: u16) -> Self {
        Self::with_host(scheme, &host.to_string(), port)
    }

    /// A TCP URL of this scheme, name or address of a host, and port.
    pub fn with_host(scheme: Scheme, host: &str, port: u16) -> Self {
        let name = if scheme == Scheme::Https { "https" } else { "http" };
        let text = match host.contains(':') {
            false => format!("{name}://{host}:{port}"),
            true => format!("{name}://[{host}]:{port}"),
        };
        Self { scheme, host: host.to_owned(), port, text }
    }

    /// The URL as it was typed, its scheme in small letters.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the path of a Unix socket.
    pub fn is_socket(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// The IP address to listen on. `localhost` is 127.0.0.1; no other name is looked up.
    ///
    /// # Errors
    /// etcd's sentence for a host that is a name.
    pub fn bind_ip(&self) -> Result<IpAddr, String> {
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        host.parse().map_err(|_| format!("expected IP in URL for binding ({self})"))
    }

    fn socket(scheme: Scheme, text: &str, rest: &str) -> Self {
        let host = rest.strip_prefix("//").unwrap_or(rest).to_owned();
        Self { scheme, host, port: 0, text: text.into() }
    }

    fn with_authority(scheme: Scheme, text: &str, rest: &str) -> Result<Self, String> {
        let shape = || format!(r#"URL address does not have the form "host:port": {text}"#);
        let rest = rest.strip_prefix("//").ok_or_else(shape)?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_port(authority, text)?.ok_or_else(shape)?;
        if tail.starts_with('/') {
            return Err(format!("URL must not contain a path: {text}"));
        }
        if !tail.is_empty() {
            return Err(format!("URL must not contain a query or a fragment: {text}"));
        }
        if authority.contains('@') {
            return Err(format!("URL must not contain a user: {text}"));
        }
        let port = port.parse().map_err(|_| format!("URL port must be 0 to 65535: {text}"))?;
        let name = if scheme == Scheme::Https { "https" } else { "http" };
        Ok(Self { scheme, host: host.into(), port, text: format!("{name}://{rest}") })
    }
}

/// The scheme in small letters and what follows its colon, in the words of Go's `url.Parse`.
fn split_scheme(text: &str) -> Result<(String, &str), String> {
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    match text.split_once(':') {
        Some(("", _)) => Err(format!("parse {text:?}: missing protocol scheme")),
        Some((scheme, rest)) if is_scheme(scheme) => Ok((scheme.to_ascii_lowercase(), rest)),
        Some((segment, _)) if !segment.contains(['/', '?', '#']) => {
            Err(format!("parse {text:?}: first path segment in URL cannot contain colon"))
        }
        _ => Ok((String::new(), text)),
    }
}

/// Host and port; `None` where the colon between them is missing or one too many.
fn split_port<'a>(authority: &'a str, text: &str) -> Result<Option<(&'a str, &'a str)>, String> {
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let Some((host, after)) = inside.split_once(']') else {
            return Err(format!("parse {text:?}: missing ']' in host"));
        };
        (host, after)
    } else {
        match authority.rfind(':') {
            Some(at) if !authority[..at].contains(':') => authority.split_at(at),
            _ => return Ok(None),
        }
    };
    match port.strip_prefix(':') {
        Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Some((host, digits))),
        None if port.is_empty() => Ok(None),
        _ => Err(format!("parse {text:?}: invalid port {port:?} after host")),
    }
}

impl AsRef<str> for Url {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
