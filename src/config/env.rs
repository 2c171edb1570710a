//! `ETCD_*` variables: each is a flag in capitals, for what the command line left open.

use super::{Notice, settings::Settings, table, value::Kind};
use crate::log::Level;
use std::collections::{BTreeMap, BTreeSet};

/// etcd's sentence for a flag that is given twice over, its odd brackets included.
pub(super) const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding \
     command-line flag (either unset environment variable or disable flag))";

/// Puts every variable's value into `settings`, by the rules of etcd's `flags.SetFlagsFromEnv`.
///
/// An empty variable counts as not set, except that it too conflicts with its flag.
///
/// # Errors
/// etcd's sentence, with the variable, for a value that cannot be read or a conflict.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), String> {
    let typed: BTreeSet<String> = table::flags()
        .filter(|flag| settings.was_typed(flag))
        .map(|flag| flag.variable())
        .collect();
    let mut used = BTreeSet::new();
    for flag in table::flags() {
        let key = flag.variable();
        let Some(value) = variables.get(&key).filter(|value| !value.is_empty()) else { continue };
        if typed.contains(&key) || key == "ETCD_VERSION" {
            continue;
        }
        used.insert(key.clone());
        // The same flag was given under its other name, old or new: that one stands.
        if settings.is_given(flag.meant().name) && flag.meant().kind != Kind::Gates {
            continue;
        }
        settings
            .put_text(flag, value, key.clone())
            .map_err(|problem| format!("invalid value {value:?} for {key}: {problem}"))?;
        notices.push(
            Notice::new(Level::Info, "recognized and used environment variable")
                .with("variable-name", key)
                .with("variable-value", value),
        );
    }
    for (key, value) in variables.iter().filter(|(key, _)| !used.contains(*key)) {
        if typed.contains(key) {
            return Err(format!("{CONFLICT}: {key}"));
        }
        notices.push(if key == "ETCD_VERSION" {
            Notice::new(Level::Warn, "cannot set special environment variable")
                .with("key", key)
                .with("value", value)
        } else {
            Notice::new(Level::Warn, "unrecognized environment variable")
                .with("environment-variable", format!("{key}={value}"))
        });
    }
    Ok(())
}
