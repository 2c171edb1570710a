//! Feature gates: etcd 3.7's names, what each would change, and which of them we refuse to fake.

use super::value::boolean;
use std::collections::BTreeMap;

/// How far a gate has come in etcd; `AllAlpha` and `AllBeta` reach by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

/// One of etcd's feature gates.
struct Gate {
    name: &'static str,
    stage: Stage,
    default: bool,
    /// Why it may take a value other than its default and change nothing; `Err` is why it may not.
    other: Result<&'static str, &'static str>,
}

const NO_COMPARING: &str = "comparing members' data is not built yet";

/// etcd 3.7.1's gates (`server/features`), by name.
const GATES: &[Gate] = &[
    Gate { name: "CompactHashCheck", stage: Stage::Alpha, default: false, other: Ok(NO_COMPARING) },
    Gate {
        name: "FastLeaseKeepAlive",
        stage: Stage::Beta,
        default: true,
        other: Ok("it changes how long a keep-alive waits, not what it answers"),
    },
    Gate {
        name: "InitialCorruptCheck",
        stage: Stage::Alpha,
        default: false,
        other: Ok(NO_COMPARING),
    },
    Gate {
        name: "LeaseCheckpoint",
        stage: Stage::Alpha,
        default: false,
        other: Err("lease checkpoints are not built yet"),
    },
    Gate {
        name: "LeaseCheckpointPersist",
        stage: Stage::Alpha,
        default: false,
        other: Err("lease checkpoints are not built yet"),
    },
    Gate {
        name: "PriorityRequest",
        stage: Stage::Alpha,
        default: false,
        other: Err("requests with priority are not built yet"),
    },
    Gate {
        name: "SetMemberLocalAddr",
        stage: Stage::Alpha,
        default: false,
        other: Err("choosing the address for calling peers is not built yet"),
    },
    Gate {
        name: "StopGRPCServiceOnDefrag",
        stage: Stage::Alpha,
        default: false,
        other: Err("stopping the gRPC service while defragmenting is not built yet"),
    },
    Gate {
        name: "TxnModeWriteWithSharedBuffer",
        stage: Stage::Beta,
        default: true,
        other: Ok("it tunes a buffer of etcd's backend that is not there"),
    },
];

/// The two gates that set others, with the stage they reach.
const GROUPS: [(&str, Stage); 2] = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];

/// Reads `Gate=bool,Gate=bool` as etcd's `featuregate.Set`, with its sentences.
pub(super) fn parse(text: &str) -> Result<BTreeMap<&'static str, bool>, String> {
    let mut set = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => return Err(format!("missing bool value for {}", pair.trim())),
        };
        let value = boolean(value).ok_or_else(|| {
            format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
        })?;
        let known = known().find(|known| *known == name);
        let known = known.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
        set.insert(known, value);
    }
    Ok(set)
}

/// Every name that [`parse`] takes, with commas.
pub(super) fn names() -> String {
    known().collect::<Vec<_>>().join(", ")
}

fn known() -> impl Iterator<Item = &'static str> {
    GATES.iter().map(|gate| gate.name).chain(GROUPS.iter().map(|(name, _)| *name))
}

/// What the gates ask for, against what there is: `Ok` holds `(gate, why it changes nothing)`.
///
/// # Errors
/// Why a gate cannot be had, one line each; or that one gate needs another (etcd `Validate`).
pub(super) fn judge(
    set: &BTreeMap<&'static str, bool>,
) -> Result<Vec<(&'static str, &'static str)>, Vec<String>> {
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for gate in GATES {
        let value = effective(gate, set);
        match gate.other {
            _ if value == gate.default => {}
            Ok(why) => ignored.push((gate.name, why)),
            Err(why) => refused.push(format!("--feature-gates sets {}={value}: {why}", gate.name)),
        }
    }
    if refused.is_empty() { Ok(ignored) } else { Err(refused) }
}

/// A gate's value: its own setting, or that of its stage's group, or its default.
fn effective(gate: &Gate, set: &BTreeMap<&'static str, bool>) -> bool {
    let group = GROUPS.iter().find(|(_, stage)| *stage == gate.stage).map(|(name, _)| name);
    let by_group = || group.and_then(|name| set.get(name));
    set.get(gate.name).or_else(by_group).copied().unwrap_or(gate.default)
}

/// Every gate with its default and what another value does, for the documentation.
pub fn rows() -> impl Iterator<Item = (&'static str, bool, Result<&'static str, &'static str>)> {
    GATES.iter().map(|gate| (gate.name, gate.default, gate.other))
}
