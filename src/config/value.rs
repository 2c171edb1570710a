//! Values as Go's `flag` and `strconv` read them, because that is what etcd's users have learnt.

use super::{gates, url::Url};
use std::collections::BTreeMap;

/// What a flag takes. The words of its errors are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Given bare, or as `=true` and `=false`; never as two arguments.
    Bool,
    /// Given bare or with anything after `=`; the value means nothing.
    Anything,
    /// A signed 64-bit number, `0x`, `0o`, `0b` and `_` allowed.
    Int,
    /// A number from 0 to the given largest.
    Uint(u64),
    /// Go's `time.Duration`: `300ms`, `1h30m`, `0`.
    Duration,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words between commas; sorted, each once, as etcd's `UniqueStringsValue`.
    List,
    /// URLs between commas; sorted, each once, as etcd's `UniqueURLs`.
    Urls,
    /// `Gate=bool` between commas.
    Gates,
}

/// A value that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Anything,
    Int(i64),
    Uint(u64),
    Nanos(i64),
    Text(String),
    List(Vec<String>),
    Urls(Vec<Url>),
    Gates(BTreeMap<&'static str, bool>),
}

impl Kind {
    /// Whether the flag may stand bare and never takes the next argument.
    pub(super) fn is_bare(self) -> bool {
        matches!(self, Kind::Bool | Kind::Anything)
    }

    /// Reads one value; the error says what is wrong with it, in Go's words where Go has them.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        Ok(match self {
            Kind::Bool => Value::Bool(boolean(text).ok_or(SYNTAX)?),
            Kind::Anything => Value::Anything,
            Kind::Int => Value::Int(signed(text)?),
            Kind::Uint(largest) => match unsigned(text)? {
                number if number <= largest => Value::Uint(number),
                _ => return Err(RANGE.into()),
            },
            Kind::Duration => Value::Nanos(duration(text).ok_or(SYNTAX)?),
            Kind::Text => Value::Text(text.into()),
            Kind::Choice(words) if words.contains(&text) => Value::Text(text.into()),
            Kind::Choice(_) => return Err("invalid value".into()),
            Kind::List => Value::List(list(text)),
            Kind::Urls => Value::Urls(Url::parse_list(text)?),
            Kind::Gates => Value::Gates(gates::parse(text)?),
        })
    }

    /// What the flag takes, to be read after "takes".
    pub fn takes(self) -> String {
        match self {
            Kind::Bool => "nothing, or =true or =false in the same argument".into(),
            Kind::Anything => "anything, and ignores it".into(),
            Kind::Int => "a whole number".into(),
            Kind::Uint(largest) => format!("a whole number from 0 to {largest}"),
            Kind::Duration => "a duration such as 300ms, 5s or 1h30m".into(),
            Kind::Text => "text".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::List => "words with commas between them".into(),
            Kind::Urls => "URLs such as http://127.0.0.1:2379, with commas between them".into(),
            Kind::Gates => format!(
                "Gate=true or Gate=false with commas between them, of the gates {}",
                gates::names()
            ),
        }
    }
}

const SYNTAX: &str = "parse error";
const RANGE: &str = "value out of range";

/// The words of Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The words between commas, sorted, each once; no words at all where there is no text.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut words: Vec<String> =
        text.split(',').filter(|_| !text.is_empty()).map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}

/// Go's `strconv.ParseInt(text, 0, 64)`.
fn signed(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = i128::from(unsigned(digits)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| RANGE)
}

/// Go's `strconv.ParseUint(text, 0, 64)`: a base prefix, or a leading 0 for octal; a `_` between
/// two digits, or between the prefix and a digit.
fn unsigned(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [] => return Err(SYNTAX),
        [b'0', b'x', _, ..] => (16, &lower[2..]),
        [b'0', b'o', _, ..] => (8, &lower[2..]),
        [b'0', b'b', _, ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let apart = digits.contains("__") || digits.ends_with('_');
    if apart || (radix == 10 && digits.starts_with('_')) {
        return Err(SYNTAX);
    }
    let mut total: Option<u64> = Some(0);
    for digit in digits.chars().filter(|&c| c != '_') {
        let digit = u64::from(digit.to_digit(radix).ok_or(SYNTAX)?);
        total = total.and_then(|t| t.checked_mul(u64::from(radix))?.checked_add(digit));
    }
    total.ok_or(RANGE)
}

/// Nanoseconds of Go's `time.ParseDuration`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = duration_part(rest)?;
        total = total.checked_add(nanos)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// One `number unit` at the front of a duration, in nanoseconds, and what follows it.
fn duration_part(text: &str) -> Option<(i128, &str)> {
    let digits = |t: &str| t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, rest) =
        rest.split_at(rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len()));
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut scale: i128 = 10;
    // Past 15 digits a fraction of an hour is below one nanosecond.
    for digit in fraction.bytes().take(15) {
        nanos += i128::from(digit - b'0') * unit / scale;
        scale *= 10;
    }
    Some((nanos, rest))
}
