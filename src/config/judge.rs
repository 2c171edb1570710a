//! What was given, against what is built: refused, or said to be ignored, or let through.

use super::{
    Notice, gates,
    settings::{Settings, Slot, default_of},
    table::Disposition,
    value::{Value, duration},
};
use crate::log::{Level, span_text};
use std::time::Duration;

/// etcd's words for flags that it still takes and means to drop.
const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
         enforced, ignoring user input.",
    ),
];

/// Lets the settings through, with a notice for each that is ignored.
///
/// # Errors
/// Every setting that is refused, one line each.
pub(super) fn judge(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), String> {
    let mut refused: Vec<String> = settings.gate_set_twice().into_iter().collect();
    for slot in settings.slots() {
        match (slot.flag.disposition, &slot.given_by) {
            (Disposition::Refused(why), Some(by)) if asks(slot) => {
                refused.push(format!("{by}={}: {why}", shown(&slot.value)));
            }
            (Disposition::Harmless(why), Some(by)) if asks(slot) => {
                notices.push(ignored(by, why).with("value", shown(&slot.value)));
            }
            _ => {}
        }
    }
    match gates::judge(settings.gates()) {
        Ok(unbuilt) => notices.extend(unbuilt.iter().map(|(gate, why)| ignored(gate, why))),
        Err(lines) => refused.extend(lines),
    }
    if !refused.is_empty() {
        return Err(refused.join("\n"));
    }
    for (name, newer) in &settings.old_names {
        notices.push(
            Notice::new(Level::Warn, "flag has a newer name")
                .with("flag", *name)
                .with("use", newer),
        );
    }
    for (name, words) in DEPRECATED {
        if settings.is_given(name) {
            notices.push(Notice::new(Level::Warn, words));
        }
    }
    Ok(())
}

fn ignored(what: &str, why: &str) -> Notice {
    Notice::new(Level::Warn, "setting is accepted and ignored")
        .with("setting", what)
        .with("reason", why)
}

/// Whether a setting asks for anything other than its default.
fn asks(slot: &Slot) -> bool {
    match &slot.value {
        Value::Anything => true,
        // "all", said by saying nothing (etcd's cors and host-whitelist).
        Value::List(words) if words.is_empty() => false,
        // "0h", and etcd's empty text, switch automatic compaction off as "0" does.
        Value::Text(text) if slot.flag.name == "auto-compaction-retention" => {
            !text.is_empty() && duration(text) != Some(0)
        }
        value => *value != default_of(slot.flag),
    }
}

/// A value as one would type it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Anything => String::new(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Nanos(nanos) => {
            let sign = if *nanos < 0 { "-" } else { "" };
            format!("{sign}{}", span_text(Duration::from_nanos(nanos.unsigned_abs())))
        }
        Value::Text(text) => format!("{text:?}"),
        Value::List(words) => format!("{:?}", words.join(",")),
        Value::Urls(urls) => {
            let urls: Vec<&str> = urls.iter().map(|url| url.as_str()).collect();
            format!("{:?}", urls.join(","))
        }
        Value::Gates(gates) => {
            let gates: Vec<String> =
                gates.iter().map(|(gate, on)| format!("{gate}={on}")).collect();
            gates.join(",")
        }
    }
}
