//! What plain HTTP can ask: health, readiness, version, metrics (etcd `api/etcdhttp`).

use super::{Shard, metrics};
use crate::api::http as bodies;

/// An answer with everything that HTTP/1.1 needs to send it.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Answer {
    /// Plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into() }
    }

    fn json(answer: bodies::Answer) -> Self {
        Self { status: answer.code, content_type: JSON, body: answer.body }
    }
}

/// Answers one request. `target` is a path with its query.
pub async fn answer(shard: &Shard, method: &str, target: &str) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/version" => get_only(method, || Answer::json(bodies::version(&shard.view().cluster))),
        "/metrics" => get_only(method, || Answer {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::exposition(&shard.setup.meters, &shard.view(), &shard.setup.edge),
        }),
        "/health" if method == "GET" => health(shard, query).await,
        "/health" => Answer::text(405, "Method Not Allowed\n"),
        _ => match checks_of(path) {
            Some(checks) if method == "GET" => run_checks(shard, checks, query).await,
            Some(_) => Answer::text(405, "Method Not Allowed\n"),
            None if path.starts_with("/v3/") || path.starts_with("/v3beta/") => Answer {
                status: 501,
                content_type: JSON,
                body: r#"{"code":12,"message":"the JSON gateway is not built yet in ringleader","details":[]}"#.into(),
            },
            None => Answer::text(404, "404 page not found\n"),
        },
    }
}

fn get_only(method: &str, answer: impl FnOnce() -> Answer) -> Answer {
    match method {
        "GET" | "HEAD" => answer(),
        _ => Answer::text(405, "Method Not Allowed\n"),
    }
}

fn values<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

/// `/health`: alarms, a leader, and a read that the cluster agrees to, unless `serializable=true`.
async fn health(shard: &Shard, query: &str) -> Answer {
    let local = values(query, "serializable") == ["true"];
    let view = shard.view();
    let excluded = values(query, "exclude");
    if let Some(unwell) = bodies::health_now(&view.cluster, view.raft, &excluded, local) {
        return Answer::json(unwell);
    }
    let read = if local { Ok(()) } else { shard.probe().await };
    Answer::json(bodies::health_read(read))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, shard: &Shard) -> Result<(), String> {
        match self {
            // A view that is there can be read.
            Self::SerializableRead => Ok(()),
            Self::NonLearner if shard.is_learner() => Err("not supported for learner".into()),
            Self::NonLearner => Ok(()),
            Self::LinearizableRead => shard.probe().await.map_err(|status| status.message.into()),
            Self::DataCorruption => {
                let corrupt = shard.view().cluster.alarmed(crate::store::ALARM_CORRUPT);
                if corrupt { Err("alarm CORRUPT is activated".into()) } else { Ok(()) }
            }
        }
    }
}

/// What stands behind `/livez`, `/readyz` and their parts, in etcd's order.
fn checks_of(path: &str) -> Option<&'static [Check]> {
    use Check::{DataCorruption, LinearizableRead, NonLearner, SerializableRead};
    Some(match path {
        "/livez" | "/livez/serializable_read" | "/readyz/serializable_read" => &[SerializableRead],
        "/readyz" => &[DataCorruption, SerializableRead, LinearizableRead, NonLearner],
        "/readyz/data_corruption" => &[DataCorruption],
        "/readyz/linearizable_read" => &[LinearizableRead],
        "/readyz/non_learner" => &[NonLearner],
        _ => return None,
    })
}

async fn run_checks(shard: &Shard, checks: &[Check], query: &str) -> Answer {
    let excluded = values(query, "exclude");
    let mut results = Vec::new();
    for check in checks.iter().filter(|check| !excluded.contains(&check.name())) {
        results.push((check.name(), check.run(shard).await));
    }
    let verbose = query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    let answer = bodies::checks(&results, verbose);
    Answer::text(answer.code, answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_repeat_and_miss() {
        assert_eq!(values("exclude=a&x=1&exclude=b", "exclude"), ["a", "b"]);
        assert_eq!(values("", "exclude"), [""; 0]);
        assert_eq!(values("verbose", "verbose"), [""; 0]);
    }
}
