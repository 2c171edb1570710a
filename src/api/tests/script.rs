//! Scripts: requests, `---`, what was answered. `UPDATE=1` rewrites the second half.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! get KEY [END] [limit=N] [rev=N] [order=asc|desc] [target=version|create|mod|value] [keys] [count]
//!               [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! stream (as get)          one line for each message
//! del KEY [END] [prev]     compact REV     alarm get|activate|deactivate [nospace|corrupt]
//! grant ID TTL             revoke ID [in_term=N]          remaining ID SECONDS
//! leases                   all of them, with their keys, from the view
//! txn if((TARGET KEY [END] REL VALUE)...) then((REQUEST)...) else((REQUEST)...)
//! disk BYTES               what the files are said to take from now on
//! ```
//!
//! `\0` stands for a zero byte, `""` for nothing.

use super::*;
use crate::{
    store::{
        Lease, Leases, command::Expired, encode_lease_checkpoint, encode_lease_grant,
        encode_lease_revoke,
    },
    types::LeaseId,
};

#[derive(Debug, Clone)]
enum Item {
    Word(String),
    List(Vec<Item>),
}

fn parse(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(&c) = text.peek() {
        match c {
            ')' => break,
            '(' => {
                text.next();
                items.push(Item::List(parse(text)));
                assert_eq!(text.next(), Some(')'), "a list must end");
            }
            c if c.is_whitespace() => drop(text.next()),
            _ => {
                let mut word = String::new();
                while let Some(c) = text.next_if(|c| !c.is_whitespace() && !"()".contains(*c)) {
                    word.push(c);
                }
                items.push(Item::Word(word));
            }
        }
    }
    items
}

fn word(item: &Item) -> &str {
    let Item::Word(word) = item else { panic!("a word, found {item:?}") };
    word
}

fn list(item: &Item) -> &[Item] {
    let Item::List(list) = item else { panic!("a list, found {item:?}") };
    list
}

fn bytes(word: &str) -> Bytes {
    if word == "\"\"" { Bytes::new() } else { word.replace("\\0", "\0").into_bytes().into() }
}

fn int(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("a number, found {text:?}"))
}

fn put_request(items: &[Item]) -> pb::PutRequest {
    let mut r = pb::PutRequest {
        key: bytes(word(&items[1])),
        value: bytes(word(&items[2])),
        ..Default::default()
    };
    for option in &items[3..] {
        match word(option).split_once('=').unwrap_or((word(option), "")) {
            ("lease", n) => r.lease = int(n),
            ("prev", _) => r.prev_kv = true,
            ("ignore_value", _) => r.ignore_value = true,
            ("ignore_lease", _) => r.ignore_lease = true,
            other => panic!("unknown option {other:?}"),
        }
    }
    r
}

fn range_request(items: &[Item]) -> pb::RangeRequest {
    let mut r = pb::RangeRequest { key: bytes(word(&items[1])), ..Default::default() };
    for option in &items[2..] {
        match word(option).split_once('=').unwrap_or((word(option), "")) {
            ("limit", n) => r.limit = int(n),
            ("rev", n) => r.revision = int(n),
            ("order", n) => {
                r.sort_order =
                    ["none", "asc", "desc"].iter().position(|o| *o == n).map_or(9, |n| n as i32)
            }
            ("target", n) => {
                let targets = ["key", "version", "create", "mod", "value"];
                r.sort_target = targets.iter().position(|t| *t == n).map_or(9, |n| n as i32);
            }
            ("min_mod", n) => r.min_mod_revision = int(n),
            ("max_mod", n) => r.max_mod_revision = int(n),
            ("min_create", n) => r.min_create_revision = int(n),
            ("max_create", n) => r.max_create_revision = int(n),
            ("keys", _) => r.keys_only = true,
            ("count", _) => r.count_only = true,
            (end, _) => r.range_end = bytes(end),
        }
    }
    r
}

fn delete_request(items: &[Item]) -> pb::DeleteRangeRequest {
    let mut r = pb::DeleteRangeRequest { key: bytes(word(&items[1])), ..Default::default() };
    for option in &items[2..] {
        match word(option) {
            "prev" => r.prev_kv = true,
            end => r.range_end = bytes(end),
        }
    }
    r
}

fn compare(items: &[Item]) -> pb::Compare {
    use pb::compare::TargetUnion;
    let (target, key, rest) = (word(&items[0]), word(&items[1]), &items[2..]);
    let (end, rest) = if rest.len() == 3 { (word(&rest[0]), &rest[1..]) } else { ("\"\"", rest) };
    let result = ["=", ">", "<", "!="].iter().position(|r| *r == word(&rest[0]));
    let value = word(&rest[1]);
    let (target, union) = match target {
        "version" => (0, TargetUnion::Version(int(value))),
        "create" => (1, TargetUnion::CreateRevision(int(value))),
        "mod" => (2, TargetUnion::ModRevision(int(value))),
        "value" => (3, TargetUnion::Value(bytes(value))),
        "lease" => (4, TargetUnion::Lease(int(value))),
        other => panic!("unknown target {other}"),
    };
    pb::Compare {
        result: result.expect("one of = > < !=") as i32,
        target,
        key: bytes(key),
        range_end: bytes(end),
        target_union: Some(union),
    }
}

fn txn_request(items: &[Item]) -> pb::TxnRequest {
    let mut r = pb::TxnRequest::default();
    for pair in items[1..].chunks(2) {
        let parts = list(&pair[1]).iter().map(list);
        match word(&pair[0]) {
            "if" => r.compare = parts.map(compare).collect(),
            "then" => r.success = parts.map(operation).collect(),
            "else" => r.failure = parts.map(operation).collect(),
            other => panic!("unknown part {other}"),
        }
    }
    r
}

fn operation(items: &[Item]) -> pb::RequestOp {
    use pb::request_op::Request;
    let request = items.first().map(|verb| match word(verb) {
        "put" => Request::RequestPut(put_request(items)),
        "get" => Request::RequestRange(range_request(items)),
        "del" => Request::RequestDeleteRange(delete_request(items)),
        "txn" => Request::RequestTxn(txn_request(items)),
        other => panic!("unknown operation {other}"),
    });
    pb::RequestOp { request }
}

fn alarm_request(items: &[Item]) -> pb::AlarmRequest {
    let position = |of: &[&str], item: Option<&Item>| {
        item.map_or(0, |item| of.iter().position(|o| *o == word(item)).expect("a known word"))
    };
    pb::AlarmRequest {
        action: position(&["get", "activate", "deactivate"], items.get(1)) as i32,
        member_id: 7,
        alarm: position(&["none", "nospace", "corrupt"], items.get(2)) as i32,
    }
}

fn show_kv(kv: &proto::mvccpb::KeyValue) -> String {
    let text = |b: &[u8]| b.escape_ascii().to_string().replace("\\x00", "\\0");
    let mut line = format!(
        "{}={} create={} mod={} version={}",
        text(&kv.key),
        text(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    );
    if kv.lease != 0 {
        line += &format!(" lease={}", kv.lease);
    }
    line
}

fn rev(header: &Option<pb::ResponseHeader>) -> String {
    header.as_ref().map_or("no header".to_owned(), |h| format!("rev={}", h.revision))
}

fn show_range(r: &pb::RangeResponse, pad: &str) -> String {
    let more = if r.more { " more" } else { "" };
    let mut out = format!("{pad}{} count={}{more}\n", rev(&r.header), r.count);
    r.kvs.iter().for_each(|kv| out += &format!("{pad}  {}\n", show_kv(kv)));
    out
}

fn show_put(r: &pb::PutResponse, pad: &str) -> String {
    let prev = r.prev_kv.as_ref().map_or(String::new(), |kv| format!(" prev {}", show_kv(kv)));
    format!("{pad}{}{prev}\n", rev(&r.header))
}

fn show_deleted(r: &pb::DeleteRangeResponse, pad: &str) -> String {
    let mut out = format!("{pad}{} deleted={}\n", rev(&r.header), r.deleted);
    r.prev_kvs.iter().for_each(|kv| out += &format!("{pad}  {}\n", show_kv(kv)));
    out
}

fn show_txn(r: &pb::TxnResponse, pad: &str) -> String {
    use pb::response_op::Response;
    let mut out =
        format!("{pad}{} {}\n", rev(&r.header), if r.succeeded { "then" } else { "else" });
    let deeper = format!("{pad}  ");
    for op in &r.responses {
        out += &match &op.response {
            Some(Response::ResponseRange(r)) => show_range(r, &deeper),
            Some(Response::ResponsePut(r)) => show_put(r, &deeper),
            Some(Response::ResponseDeleteRange(r)) => show_deleted(r, &deeper),
            Some(Response::ResponseTxn(r)) => show_txn(r, &deeper),
            None => format!("{deeper}nothing\n"),
        };
    }
    out
}

fn show_alarms(r: &pb::AlarmResponse) -> String {
    let alarms = r.alarms.iter().map(|a| format!(" {}:{:?}", a.member_id, a.alarm()));
    format!("  {}{}\n", rev(&r.header), alarms.collect::<String>())
}

fn lease(items: &[Item]) -> LeaseId {
    LeaseId(int(word(&items[1])))
}

fn show_leases(leases: Leases<'_>) -> String {
    let one = |(id, lease): (LeaseId, Lease)| {
        let keys: Vec<_> = leases.keys(id).map(|key| key.escape_ascii().to_string()).collect();
        let Lease { granted, remaining, .. } = lease;
        format!("  {} ttl={granted} remaining={remaining} [{}]\n", id.0, keys.join(" "))
    };
    leases.from(LeaseId(i64::MIN)).map(one).collect()
}

fn stream(world: &mut World, items: &[Item]) -> Result<String, Status> {
    let request = range_request(items).encode_to_vec();
    let bodies = world.call_raw(Method::RangeStream, request)?;
    let show = |body: Vec<u8>| {
        let part = pb::RangeStreamResponse::decode(Bytes::from(body)).expect("a part");
        let part = part.range_response.expect("every part has a response");
        let keys: Vec<_> = part.kvs.iter().map(|kv| kv.key.escape_ascii().to_string()).collect();
        let more = if part.more { " more" } else { "" };
        format!("  {} count={}{more} [{}]\n", rev(&part.header), part.count, keys.join(" "))
    };
    Ok(bodies.into_iter().map(show).collect())
}

fn run(world: &mut World, items: &[Item]) -> Result<String, Status> {
    Ok(match word(&items[0]) {
        "put" => show_put(&world.call(Method::Put, &put_request(items))?, "  "),
        "get" => show_range(&world.call(Method::Range, &range_request(items))?, "  "),
        "stream" => stream(world, items)?,
        "del" => show_deleted(&world.call(Method::DeleteRange, &delete_request(items))?, "  "),
        "txn" => show_txn(&world.call(Method::Txn, &txn_request(items))?, "  "),
        "compact" => {
            let request = pb::CompactionRequest { revision: int(word(&items[1])), physical: false };
            let response: pb::CompactionResponse = world.call(Method::Compact, &request)?;
            format!("  {}\n", rev(&response.header))
        }
        "grant" => {
            let body = encode_lease_grant(lease(items), int(word(&items[2])));
            let r: pb::LeaseGrantResponse = world.propose(&body)?;
            format!("  {} lease={} ttl={}\n", rev(&r.header), r.id, r.ttl)
        }
        "revoke" => {
            let in_term = items.get(2).and_then(|item| word(item).strip_prefix("in_term="));
            // As a leader that has applied everything.
            let seen = |term| Expired { term: Term(int(term) as u64), applied: Index(u64::MAX) };
            let body = encode_lease_revoke(lease(items), in_term.map(seen));
            let r: pb::LeaseRevokeResponse = world.propose(&body)?;
            format!("  {}\n", rev(&r.header))
        }
        "remaining" => {
            let body = encode_lease_checkpoint(&[(lease(items), int(word(&items[2])))]);
            let r: pb::LeaseCheckpointResponse = world.propose(&body)?;
            format!("  {}\n", rev(&r.header))
        }
        "leases" => show_leases(world.view.leases()),
        "alarm" => show_alarms(&world.call(Method::Alarm, &alarm_request(items))?),
        "disk" => {
            world.disk_bytes = int(word(&items[1])) as u64;
            String::new()
        }
        other => panic!("unknown request {other}"),
    })
}

fn play(script: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.is_empty()) {
        out += &format!("{line}\n");
        if !line.starts_with('#') {
            let answer = run(&mut world, &parse(&mut line.chars().peekable()));
            out += &answer.unwrap_or_else(|status| format!("  {status}\n"));
        }
    }
    out
}

#[test]
fn scripts_say_what_they_said() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/scripts");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts")
        .map(|e| e.expect("a file").path())
        .collect();
    names.sort();
    assert!(names.len() > 10, "the scripts are there");
    for name in names {
        let text = std::fs::read_to_string(&name).expect("a readable script");
        let (script, expected) = text.split_once("---\n").unwrap_or((&text, ""));
        let answered = play(script);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&name, format!("{}\n---\n{answered}", script.trim_end()))
                .expect("write");
        } else {
            assert_eq!(answered, expected, "{}", name.display());
        }
    }
}
