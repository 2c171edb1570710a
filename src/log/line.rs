//! One line: JSON as etcd's zap writes it, or tab-separated for a terminal.
//!
//! ```text
//! {"level":"info","ts":"2026-01-02T15:04:05.000000Z","caller":"shard/accept.rs:12","msg":"…","key":"value"}
//! 2026-01-02T15:04:05.000000Z⇥info⇥shard/accept.rs:12⇥…⇥{"key": "value"}
//! ```
//!
//! Times are in UTC whatever the machine's time zone (etcd uses the zone; in a container that is
//! the same).

use crate::limits::{LOG_LIST_LEN_MAX, LOG_VALUE_BYTES_MAX};
use std::{
    fmt::{self, Write},
    time::Duration,
};

/// How loud a line is; zap's levels. `Panic` and `Fatal` are only words here: a process dies
/// through [`crate::fatal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happened as it should.
    Info,
    /// What somebody should look at some day.
    Warn,
    /// What failed.
    Error,
    /// What etcd panics on.
    Panic,
    /// What ends the process.
    Fatal,
}

impl Level {
    const ALL: [(Level, &'static str); 6] = [
        (Level::Debug, "debug"),
        (Level::Info, "info"),
        (Level::Warn, "warn"),
        (Level::Error, "error"),
        (Level::Panic, "panic"),
        (Level::Fatal, "fatal"),
    ];

    /// The level of this name, in small letters or all capitals; no name is `Info` (zap's rule).
    pub fn named(name: &str) -> Option<Self> {
        let is = |word: &str| name == word || name == word.to_ascii_uppercase();
        match name {
            "" => Some(Level::Info),
            _ => Self::ALL.into_iter().find(|(_, word)| is(word)).map(|(level, _)| level),
        }
    }

    fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Columns with tabs between them; the fields are JSON in the last.
    Console,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text; more than [`LOG_VALUE_BYTES_MAX`] of it is cut.
    Text(&'a str),
    /// A number.
    Int(i64),
    /// A number from 0.
    Uint(u64),
    /// A number; text where JSON has no number for it.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A time span, as Go writes it: `1m30s`, `250ms`.
    Span(Duration),
    /// A list of texts; more than [`LOG_LIST_LEN_MAX`] are cut.
    List(Vec<&'a str>),
}

/// What can be a field's value.
pub trait ToValue {
    /// This as a value.
    fn to_value(&self) -> Value<'_>;
}

macro_rules! to_value {
    ($($type:ty => $value:expr;)*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value<'_> {
                let as_value: fn(&$type) -> Value<'_> = $value;
                as_value(self)
            }
        }
    )*};
}

to_value! {
    str => |text| Value::Text(text);
    String => |text| Value::Text(text);
    bool => |value| Value::Bool(*value);
    i32 => |number| Value::Int((*number).into());
    i64 => |number| Value::Int(*number);
    u16 => |number| Value::Uint((*number).into());
    u32 => |number| Value::Uint((*number).into());
    u64 => |number| Value::Uint(*number);
    usize => |number| Value::Uint(*number as u64);
    f64 => |number| Value::Float(*number);
    Duration => |span| Value::Span(*span);
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<S: AsRef<str>> ToValue for [S] {
    fn to_value(&self) -> Value<'_> {
        Value::List(self.iter().map(AsRef::as_ref).collect())
    }
}

impl<S: AsRef<str>> ToValue for Vec<S> {
    fn to_value(&self) -> Value<'_> {
        self.as_slice().to_value()
    }
}

/// All that a line says.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    /// Since 1970.
    pub(super) nanos: u64,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) message: &'a str,
    pub(super) fields: &'a [(&'a str, Value<'a>)],
}

impl Line<'_> {
    /// The line with its line end, which is the only one in it.
    pub(super) fn encode(&self, format: Format) -> String {
        let mut out = String::with_capacity(256);
        match format {
            Format::Json => self.json(&mut out),
            Format::Console => self.console(&mut out),
        }
        out.push('\n');
        out
    }

    fn json(&self, out: &mut String) {
        out.push_str("{\"level\":\"");
        out.push_str(self.level.word());
        out.push_str("\",\"ts\":\"");
        push_time(out, self.nanos);
        out.push_str("\",\"caller\":\"");
        self.push_caller(out);
        out.push_str("\",\"msg\":");
        push_text(out, self.message);
        for (key, value) in self.fields {
            out.push(',');
            push_text(out, key);
            out.push(':');
            push_value(out, value, ",");
        }
        out.push('}');
    }

    fn console(&self, out: &mut String) {
        push_time(out, self.nanos);
        out.push('\t');
        out.push_str(self.level.word());
        out.push('\t');
        self.push_caller(out);
        out.push('\t');
        // A message is ours, but its line ends would still begin lines that nobody wrote.
        out.extend(self.message.chars().map(|c| if c.is_control() { ' ' } else { c }));
        for (n, (key, value)) in self.fields.iter().enumerate() {
            out.push_str(if n == 0 { "\t{" } else { ", " });
            push_text(out, key);
            out.push_str(": ");
            push_value(out, value, ", ");
        }
        if !self.fields.is_empty() {
            out.push('}');
        }
    }

    /// The file's last directory and name, and the line (zap's short caller).
    fn push_caller(&self, out: &mut String) {
        let mut slashes = self.file.rmatch_indices('/');
        let from = slashes.nth(1).map_or(0, |(at, _)| at + 1);
        put(out, format_args!("{}:{}", &self.file[from..], self.line));
    }
}

fn push_value(out: &mut String, value: &Value<'_>, comma: &str) {
    match value {
        Value::Int(number) => put(out, format_args!("{number}")),
        Value::Uint(number) => put(out, format_args!("{number}")),
        Value::Float(number) if number.is_finite() => put(out, format_args!("{number}")),
        Value::Float(number) => put(out, format_args!("\"{number}\"")),
        Value::Bool(value) => put(out, format_args!("{value}")),
        Value::Text(text) => push_text(out, text),
        Value::Span(span) => push_text(out, &span_text(*span)),
        Value::List(texts) => push_list(out, texts, comma),
    }
}

/// Formats onto the end of a string.
fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

fn push_list(out: &mut String, texts: &[&str], comma: &str) {
    out.push('[');
    for (n, text) in texts.iter().take(LOG_LIST_LEN_MAX).enumerate() {
        out.push_str(if n == 0 { "" } else { comma });
        push_text(out, text);
    }
    if texts.len() > LOG_LIST_LEN_MAX {
        put(out, format_args!("{comma}\"… {} more\"", texts.len() - LOG_LIST_LEN_MAX));
    }
    out.push(']');
}

/// A JSON string: zap escapes `"`, `\` and what is below the space, and nothing else.
fn push_text(out: &mut String, text: &str) {
    let shown = &text[..text.floor_char_boundary(LOG_VALUE_BYTES_MAX)];
    out.push('"');
    for c in shown.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                put(out, format_args!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    if shown.len() < text.len() {
        put(out, format_args!("… {} more bytes", text.len() - shown.len()));
    }
    out.push('"');
}

/// A time span as Go's `time.Duration.String` writes it: hours, minutes and seconds, or one
/// smaller unit.
pub fn span_text(span: Duration) -> String {
    let (seconds, nanos) = (span.as_secs(), span.subsec_nanos());
    match (seconds, nanos) {
        (0, 0) => return "0s".into(),
        (0, ..1_000) => return format!("{nanos}ns"),
        (0, ..1_000_000) => return format!("{}µs", f64::from(nanos) / 1e3),
        (0, _) => return format!("{}ms", f64::from(nanos) / 1e6),
        _ => {}
    }
    let mut text = String::new();
    if seconds >= 3600 {
        put(&mut text, format_args!("{}h", seconds / 3600));
    }
    if seconds >= 60 {
        put(&mut text, format_args!("{}m", seconds / 60 % 60));
    }
    put(&mut text, format_args!("{}", seconds % 60));
    if nanos > 0 {
        put(&mut text, format_args!(".{}", format!("{nanos:09}").trim_end_matches('0')));
    }
    text + "s"
}

/// `2006-01-02T15:04:05.000000Z`.
fn push_time(out: &mut String, nanos: u64) {
    let (seconds, micros) = (nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    put(
        out,
        format_args!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        ),
    );
}

/// Year, month and day, that many days after 1970-01-01. Years begin in March here, so that the
/// leap day is a year's last, and 400 of them are one era of 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    const MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + MARCH_OF_YEAR_0;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}
