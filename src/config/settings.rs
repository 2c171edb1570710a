//! What has been given so far, flag by flag, and what stands where nothing was.

use super::{
    table::{self, Disposition, Flag},
    url::Url,
    value::{Kind, Value},
};
use std::collections::{BTreeMap, BTreeSet};

/// One flag's value and, where it was given, the words that gave it: `--name`, `ETCD_NAME`, or a
/// place in a file.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) flag: &'static Flag,
    pub(super) value: Value,
    pub(super) given_by: Option<String>,
}

/// Every flag of the table with its value; older names have put theirs under the newer ones.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    slots: BTreeMap<&'static str, Slot>,
    /// Names that were used, old or new.
    typed: BTreeSet<&'static str>,
    /// Gates set by their own old flags, and by `feature-gates`: not both for one gate.
    gates_by_flag: BTreeMap<&'static str, String>,
    gates_by_gate: BTreeMap<&'static str, String>,
    /// Old names that were used, each with the name to use instead.
    pub(super) old_names: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Every flag at its default.
    pub(super) fn new() -> Self {
        let slot = |flag: &'static Flag| Slot { flag, value: default_of(flag), given_by: None };
        let slots = table::flags().map(|flag| (flag.name, slot(flag))).collect();
        Self {
            slots,
            typed: BTreeSet::new(),
            gates_by_flag: BTreeMap::new(),
            gates_by_gate: BTreeMap::new(),
            old_names: BTreeMap::new(),
        }
    }

    /// Reads and puts a value; the error is about the value and does not name the flag.
    pub(super) fn put_text(
        &mut self,
        flag: &'static Flag,
        text: &str,
        given_by: String,
    ) -> Result<(), String> {
        self.put(flag, flag.takes().parse(text)?, given_by);
        Ok(())
    }

    /// Puts a value in place of the one before.
    pub(super) fn put(&mut self, flag: &'static Flag, value: Value, given_by: String) {
        let value = self.translate(flag, value, &given_by);
        self.typed.insert(flag.name);
        let slot = self.slot_mut(flag.meant().name);
        slot.given_by = Some(given_by);
        match (&mut slot.value, value) {
            // etcd's `featuregate.Set` adds to what was set before.
            (Value::Gates(old), Value::Gates(new)) => old.extend(new),
            // An empty list of URLs leaves the default (etcd's `UniqueURLs`).
            (Value::Urls(_), Value::Urls(new)) if new.is_empty() => {}
            (old, new) => *old = new,
        }
    }

    /// What an old flag means in terms of the newer one, and that it was used.
    fn translate(&mut self, flag: &'static Flag, value: Value, given_by: &str) -> Value {
        match (flag.disposition, value) {
            (Disposition::Gate(gate), Value::Bool(on)) => {
                self.old_names.insert(flag.name, format!("--feature-gates={gate}={on}"));
                self.gates_by_flag.insert(gate, given_by.into());
                Value::Gates(BTreeMap::from([(gate, on)]))
            }
            (Disposition::Renamed(to), value) => {
                self.old_names.insert(flag.name, format!("--{to}"));
                value
            }
            (_, Value::Gates(gates)) => {
                self.gates_by_gate.extend(gates.keys().map(|gate| (*gate, given_by.to_owned())));
                Value::Gates(gates)
            }
            (_, value) => value,
        }
    }

    /// A gate that was set by its old flag and by `feature-gates` too (etcd 3.6 refuses that).
    pub(super) fn gate_set_twice(&self) -> Option<String> {
        let twice = |gate: &&'static str| {
            Some((self.gates_by_flag.get(*gate)?, self.gates_by_gate.get(*gate)?))
        };
        self.gates_by_flag.keys().find_map(|gate| {
            let (flag, gates) = twice(gate)?;
            Some(format!("{flag} and {gates} both set {gate}; use --feature-gates alone"))
        })
    }

    /// The slots in the order of the table.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        table::flags().map(|flag| &self.slots[flag.name])
    }

    /// Whether this very name was used.
    pub(super) fn was_typed(&self, flag: &Flag) -> bool {
        self.typed.contains(flag.name)
    }

    /// Whether the flag was given under any name, even with its default as the value.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.slots[name].given_by.is_some()
    }

    /// What gave the flag, or the flag where nothing did; for error texts.
    pub(super) fn said(&self, name: &str) -> String {
        self.slots[name].given_by.clone().unwrap_or_else(|| format!("--{name}"))
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.slots[name].value {
            Value::Bool(value) => value,
            _ => unreachable!("the table says that {name} takes true or false"),
        }
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        match self.slots[name].value {
            Value::Int(value) | Value::Nanos(value) => value,
            _ => unreachable!("the table says that {name} takes a number or a duration"),
        }
    }

    pub(super) fn uint(&self, name: &str) -> u64 {
        match self.slots[name].value {
            Value::Uint(value) => value,
            _ => unreachable!("the table says that {name} takes a number from 0"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match &self.slots[name].value {
            Value::Text(value) => value,
            _ => unreachable!("the table says that {name} takes text"),
        }
    }

    pub(super) fn list(&self, name: &str) -> &[String] {
        match &self.slots[name].value {
            Value::List(value) => value,
            _ => unreachable!("the table says that {name} takes words"),
        }
    }

    pub(super) fn urls(&self, name: &str) -> &[Url] {
        match &self.slots[name].value {
            Value::Urls(value) => value,
            _ => unreachable!("the table says that {name} takes URLs"),
        }
    }

    pub(super) fn gates(&self) -> &BTreeMap<&'static str, bool> {
        match &self.slots["feature-gates"].value {
            Value::Gates(value) => value,
            _ => unreachable!("the table says that feature-gates takes gates"),
        }
    }

    fn slot_mut(&mut self, name: &str) -> &mut Slot {
        self.slots.get_mut(name).expect("every flag of the table has a slot")
    }
}

/// A flag's default, read.
pub(super) fn default_of(flag: &'static Flag) -> Value {
    let kind =
        if matches!(flag.disposition, Disposition::Renamed(_)) { Kind::Text } else { flag.kind };
    kind.parse(flag.default).expect("the table's defaults can be read; tested")
}
