//! What happened, by revision, as all watch streams agree.

use std::collections::BTreeMap;

use proto::mvccpb::Event;

use super::{Findings, op::Stream};

/// The events of each revision.
pub(super) type Truth = BTreeMap<i64, Vec<Event>>;

/// Streams that asked for the values before are told more than others, which is judged by replay.
fn same(a: &[Event], b: &[Event]) -> bool {
    let plain = |event: &Event| (event.r#type, event.kv.clone());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| plain(a) == plain(b))
}

/// Puts all streams together; what one was told and another was not is told to the findings.
pub(super) fn agree(streams: &BTreeMap<u32, Stream>, found: &mut Findings) -> Truth {
    let mut truth = Truth::new();
    let told: Vec<_> =
        streams.iter().map(|(name, stream)| by_revision(*name, stream, found)).collect();
    for (name, (events, _)) in streams.keys().zip(&told) {
        for (revision, events) in events {
            let known = truth.entry(*revision).or_insert_with(|| events.clone());
            if !same(known, events) {
                found.say(|| {
                    format!(
                        "watch stream {name} was told at {revision} {events:?}, another {known:?}"
                    )
                });
            } else if known.iter().all(|event| event.prev_kv.is_none()) {
                known.clone_from(events);
            }
        }
    }
    for ((name, stream), (events, reached)) in streams.iter().zip(&told) {
        let reached = (*reached).max(stream.complete);
        let owed = truth.range(stream.start..).take_while(|(revision, _)| **revision <= reached);
        let missing = owed.map(|(revision, _)| revision).find(|owed| !events.contains_key(owed));
        if let Some(revision) = missing {
            found.say(|| {
                format!(
                    "watch stream {name} of endpoint {} from {} was not told of {revision}, and got \
                     to {reached}",
                    stream.endpoint, stream.start
                )
            });
        }
        found.summary.streams += 1;
        found.summary.events += events.values().map(|events| events.len() as u64).sum::<u64>();
    }
    if let Some((gap, _)) = (2..).zip(truth.keys()).find(|(expected, found)| expected != *found) {
        found.say(|| format!("no watch stream was told of revision {gap}"));
    }
    truth
}

/// One stream's events by revision, and up to where it was told all.
fn by_revision(name: u32, stream: &Stream, found: &mut Findings) -> (Truth, i64) {
    let mut events = Truth::new();
    let mut last = stream.start - 1;
    for (_, header, told) in &stream.told {
        let before = last;
        for event in told {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision < last || revision <= before || revision > *header {
                found.say(|| {
                    format!(
                        "watch stream {name} was told of {revision} after {last}, in a response of \
                         revision {header}"
                    )
                });
            }
            last = last.max(revision);
            events.entry(revision).or_default().push(event.clone());
        }
        if told.is_empty() {
            last = last.max(*header);
        }
    }
    (events, last)
}
