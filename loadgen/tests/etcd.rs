//! Client and engine against real etcd: that they understand a server we did not write.
//!
//! Looks for the binary in `$REAL_ETCD_DIR`, else in `target/etcd`, where `tests/e2e/build-etcd.sh` puts
//! it. Where there is none, each test says so and passes.
#![allow(clippy::disallowed_methods, reason = "a real server takes real time")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use loadgen::{
    beside::Beside,
    client::Client,
    engine::{self, Pace, Plan, Until},
    expiry, fanout,
    grpc::code,
    kubernetes::Kubernetes,
    lease as keeping,
    ops::{Chooser, Kind, Numbered, Ops},
    report::Report,
    sizes::Sizes,
    watching::Watches,
    work::{Call, Order, Work},
    writers::Puts,
};
use proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RangeStreamResponse, RequestOp, SnapshotRequest, SnapshotResponse,
        TxnRequest, TxnResponse, kv, lease, maintenance, request_op::Request,
    },
    v3electionpb::{LeaderRequest, LeaderResponse, election},
};
use serde_json::Value;

/// One member with its own folder, both gone when dropped.
struct Etcd {
    process: Child,
    folder: PathBuf,
    endpoint: String,
}

impl Etcd {
    /// None where there is no binary.
    fn start(test: &str) -> Option<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/etcd");
        let bin = std::env::var_os("REAL_ETCD_DIR").map_or(target, PathBuf::from).join("etcd");
        if !bin.exists() {
            eprintln!("{test}: skipped, no {}; see tests/e2e/build-etcd.sh", bin.display());
            return None;
        }
        let folder =
            std::env::temp_dir().join(format!("loadgen-{}-{test}.etcd", std::process::id()));
        let [client, peer] = free_ports();
        let (client_url, peer_url) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let process = Command::new(bin)
            .arg("--data-dir")
            .arg(&folder)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd starts");
        Some(Self { process, folder, endpoint: format!("127.0.0.1:{client}") })
    }

    /// A client, once the member leads and can write.
    fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let connected = Client::connect(&self.endpoint).map(|mut client| {
                let grant = LeaseGrantRequest { ttl: 100, id: 0 };
                let granted: Result<LeaseGrantResponse, _> =
                    client.unary(lease::LEASE_GRANT, &grant);
                granted.map(|_| client)
            });
            match connected {
                Ok(Ok(client)) => return client,
                other => {
                    assert!(Instant::now() < deadline, "etcd does not serve: {:?}", other.err())
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().expect("etcd is ours to kill");
        self.process.wait().expect("etcd is ours to wait for");
        fs::remove_dir_all(&self.folder).expect("nobody else uses the folder");
    }
}

fn free_ports() -> [u16; 2] {
    [(); 2]
        .map(|()| TcpListener::bind("127.0.0.1:0").expect("there is a free port"))
        .map(|listener| listener.local_addr().expect("it is bound").port())
}

fn put(
    client: &mut Client,
    key: &str,
    value: Vec<u8>,
) -> Result<PutResponse, loadgen::grpc::Status> {
    let put = PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    client.unary(kv::PUT, &put)
}

fn everything() -> RangeRequest {
    RangeRequest { key: b"\0"[..].into(), range_end: b"\0"[..].into(), ..Default::default() }
}

#[test]
fn calls_and_their_errors() {
    let Some(etcd) = Etcd::start("calls") else { return };
    let mut client = etcd.client();
    let header = put(&mut client, "k", b"v".into()).unwrap().header.unwrap();
    assert_eq!(header.revision, 2);
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    assert_eq!((&response.kvs[0].value[..], response.count), (&b"v"[..], 1));

    let error = put(&mut client, "", b"v".into()).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (3, "etcdserver: key is not provided"));
    let error = client.unary::<_, PutResponse>("/etcdserverpb.KV/Nothing", &everything());
    assert_eq!(error.unwrap_err().code, code::UNIMPLEMENTED);
    // The connection outlives the errors.
    put(&mut client, "k", b"v".into()).unwrap();
}

#[test]
fn bodies_larger_than_the_windows() {
    let Some(etcd) = Etcd::start("bodies") else { return };
    let mut client = etcd.client();
    let value = |key: u8| vec![key; 1_000_000];
    for key in 0..20 {
        put(&mut client, &format!("k{key:02}"), value(key)).unwrap();
    }
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    assert_eq!(response.kvs.len(), 20);
    assert!(response.kvs.iter().zip(0..).all(|(kv, key)| kv.value == value(key)));

    let parts: Vec<RangeStreamResponse> =
        client.stream(kv::RANGE_STREAM, &everything()).unwrap().map(Result::unwrap).collect();
    assert!(parts.len() > 1);
    let kvs: Vec<_> = parts.into_iter().flat_map(|part| part.range_response.unwrap().kvs).collect();
    assert_eq!(kvs, response.kvs);

    let blobs = client.stream::<_, SnapshotResponse>(maintenance::SNAPSHOT, &SnapshotRequest {});
    let blobs: Vec<_> = blobs.unwrap().map(Result::unwrap).collect();
    let bytes: u64 = blobs.iter().map(|blob| blob.blob.len() as u64).sum();
    // What remains is told of the file, without the SHA-256 that follows it.
    assert_eq!(bytes, blobs[0].blob.len() as u64 + blobs[0].remaining_bytes + 32);
    assert!(bytes > 20_000_000);

    // A call given up in the middle does not disturb the next.
    let mut blobs =
        client.stream::<_, SnapshotResponse>(maintenance::SNAPSHOT, &SnapshotRequest {}).unwrap();
    blobs.next().unwrap().unwrap();
    drop(blobs);
    put(&mut client, "k", b"v".into()).unwrap();
}

#[test]
fn an_answer_that_does_not_come_is_given_up() {
    let Some(etcd) = Etcd::start("silence") else { return };
    let mut client = etcd.client();
    client.set_timeout(Duration::from_millis(200));
    let observe = LeaderRequest { name: b"nobody campaigns"[..].into() };
    let mut leaders = client.stream::<_, LeaderResponse>(election::OBSERVE, &observe).unwrap();
    assert_eq!(leaders.next().unwrap().unwrap_err().code, code::DEADLINE_EXCEEDED);
    assert!(leaders.next().is_none());
    drop(leaders);
    client.set_timeout(Duration::from_secs(20));
    put(&mut client, "k", b"v".into()).unwrap();
}

#[test]
fn load_is_counted_exactly_and_leaves_what_it_says() {
    let Some(etcd) = Etcd::start("load") else { return };
    let mut client = etcd.client();
    let plan = |until| Plan {
        endpoints: vec![etcd.endpoint.clone()],
        connections: 4,
        streams: 8,
        until,
        pids: vec![etcd.process.id()],
    };
    let fill = Work::new(Call::Put, Order::Sequential, 500, 100);
    let report = engine::run(&plan(Until::Calls(500)), fill).unwrap();
    assert_eq!((report.done(), report.errors().len()), (500, 0));
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    assert_eq!(response.count, 500);
    assert!(response.kvs.iter().all(|kv| kv.version == 1 && kv.value.len() == 100));

    let range = Call::Range { serializable: false };
    let time = Until::Elapsed(Duration::from_millis(200));
    let report = engine::run(&plan(time), Work::new(range, Order::Random, 500, 100)).unwrap();
    assert!(report.done() > 0 && report.errors().is_empty());
    // A key that is not there is an error of ours, for the server did less than was asked.
    let report =
        engine::run(&plan(Until::Calls(100)), Work::new(range, Order::Random, 1_000_000, 100));
    assert!(report.unwrap().errors().contains_key("code 0: an answer without what was asked for"));
}

#[test]
fn a_conversation_goes_on_until_both_have_ended_it() {
    let Some(etcd) = Etcd::start("duplex") else { return };
    let mut client = etcd.client();
    let grant = LeaseGrantRequest { ttl: 100, id: 9 };
    let _: LeaseGrantResponse = client.unary(lease::LEASE_GRANT, &grant).unwrap();
    let mut call = client.duplex(lease::LEASE_KEEP_ALIVE).unwrap();
    let soon = Duration::from_millis(20);
    let silence = call.next::<LeaseKeepAliveResponse>(soon).unwrap_err();
    assert_eq!(silence.code, code::DEADLINE_EXCEEDED);
    for id in [9, 10, 9] {
        call.send(&LeaseKeepAliveRequest { id }).unwrap();
    }
    let mut next = || call.next::<LeaseKeepAliveResponse>(Duration::from_secs(20)).unwrap();
    let kept = [next(), next(), next()].map(|answer| answer.unwrap());
    assert_eq!(kept.map(|answer| (answer.id, answer.ttl)), [(9, 100), (10, 0), (9, 100)]);
    call.finish().unwrap();
    assert_eq!(call.next::<LeaseKeepAliveResponse>(Duration::from_secs(20)).unwrap(), None);
}

#[test]
fn every_watcher_gets_every_put() {
    let Some(etcd) = Etcd::start("fanout") else { return };
    let mut client = etcd.client();
    let plan = |rate, stalled| fanout::Plan {
        endpoint: etcd.endpoint.clone(),
        connections: 3,
        streams: 2,
        watchers: 20,
        prev_kv: true,
        stalled,
        puts: Puts { writers: 2, rate, keys: 10, value_bytes: 64 },
        warm_up: Duration::from_millis(50),
        time: Duration::from_millis(300),
        pid: Some(etcd.process.id()),
    };
    for plan in [plan(None, 0), plan(Some(200), 2)] {
        let report = fanout::run(&plan, None).unwrap();
        assert_eq!((report.failed(), report.events()), (0, report.puts() * 20));
        assert!(report.puts() > 0);
        let text = format!("{report} {}", report.json());
        assert_eq!(text.contains("2 stalled"), plan.stalled == 2, "{text}");
    }
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    assert_eq!(response.count, 10);
}

#[test]
fn leases_are_kept_alive_and_then_let_go() {
    let Some(etcd) = Etcd::start("leases") else { return };
    let mut client = etcd.client();
    let plan = |ttl, depth, attach| keeping::Plan {
        endpoint: etcd.endpoint.clone(),
        connections: 3,
        streams: 2,
        leases: 50,
        depth,
        ttl,
        attach,
        warm_up: Duration::from_millis(50),
        pid: Some(etcd.process.id()),
    };
    let report = keeping::run(&plan(500, 3, false), Duration::from_millis(200), None).unwrap();
    assert!(report.done() > 0 && report.errors().is_empty());

    let puts = Puts { writers: 1, rate: Some(100), keys: 10, value_bytes: 8 };
    let [before, gone_max] = [Duration::from_millis(100), Duration::from_secs(30)];
    let report = expiry::run(&plan(3, 1, true), &puts, before, gone_max, None).unwrap();
    assert_eq!((report.left(), report.failed()), (0, 0), "{report}");
    let left: LeaseLeasesResponse =
        client.unary(lease::LEASE_LEASES, &LeaseLeasesRequest {}).unwrap();
    // The one of the member's start, and those of 500 seconds.
    assert_eq!(left.leases.len(), 1 + 50);
    let range = RangeRequest { count_only: true, ..everything() };
    let response: RangeResponse = client.unary(kv::RANGE, &range).unwrap();
    assert_eq!(response.count, 10, "the leases' 50 keys are gone but for those put again");
}

fn report_of<C: Chooser>(etcd: &Etcd, ops: &mut Ops<C>, streams: usize, calls: u64) -> Report {
    let plan = Plan {
        endpoints: vec![etcd.endpoint.clone()],
        connections: 1,
        streams,
        until: Until::Calls(calls),
        pids: vec![etcd.process.id()],
    };
    engine::run_at(&plan, &Pace::default(), ops, &mut Beside::default()).unwrap()
}

#[test]
fn a_swap_wins_in_the_end_and_what_it_lost_is_counted() {
    let Some(etcd) = Etcd::start("swaps") else { return };
    let mut client = etcd.client();
    put(&mut client, "key-000000000000", b"before".into()).unwrap();
    // Sixteen at a time on four keys.
    let sizes = || Sizes::Fixed(10);
    let mut ops = Numbered::new(Kind::Swap, Order::Random, 4, sizes());
    let report = report_of(&etcd, &mut ops, 16, 400);
    assert_eq!((report.done(), report.errors().len()), (400, 0), "{report}");
    assert!(report.count("retries") > 0 && report.count("learned") >= 1, "{report}");
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    let versions: i64 = response.kvs.iter().map(|kv| kv.version).sum();
    assert_eq!((response.count, versions), (4, 401), "each swap was made once");
    // Alone nobody is in its way.
    let mut ops = Numbered::new(Kind::Swap, Order::Sequential, 400, sizes());
    let report = report_of(&etcd, &mut ops, 16, 400);
    assert_eq!((report.count("learned"), report.count("retries")), (4, 0), "{report}");
}

#[test]
fn a_list_has_every_key_once_page_by_page_and_a_count_each_at_once() {
    let Some(etcd) = Etcd::start("lists") else { return };
    etcd.client();
    let fill = Work::new(Call::Put, Order::Sequential, 250, 10);
    let plan = Plan {
        endpoints: vec![etcd.endpoint.clone()],
        connections: 1,
        streams: 8,
        until: Until::Calls(250),
        pids: Vec::new(),
    };
    engine::run(&plan, fill).unwrap();
    let lists = |digits, limit| {
        let kind = Kind::List { digits, limit };
        Numbered::new(kind, Order::Sequential, 250, Sizes::Fixed(10))
    };
    for (digits, limit, pages, listed) in [(2, 30, 4, 100), (2, 0, 1, 100), (12, 100, 3, 250)] {
        let report = report_of(&etcd, &mut lists(digits, limit), 1, 1);
        assert_eq!((report.done(), report.errors().len()), (1, 0), "{report}");
        assert_eq!((report.count("pages"), report.count("listed")), (pages, listed), "{report}");
    }
    for (digits, counted) in [(2, 100), (12, 250)] {
        let kind = Kind::Count { digits };
        let mut counts = Numbered::new(kind, Order::Sequential, 250, Sizes::Fixed(10));
        let report = report_of(&etcd, &mut counts, 1, 1);
        assert_eq!((report.done(), report.count("counted")), (1, counted), "{report}");
    }
    let delete = Work::new(Call::Delete, Order::Sequential, 300, 0);
    let report = engine::run(&Plan { until: Until::Calls(300), ..plan }, delete).unwrap();
    assert_eq!((report.count("deleted"), report.count("absent")), (250, 50), "{report}");
}

#[test]
fn a_mix_of_kubernetes_leaves_the_pods_it_says() {
    let Some(etcd) = Etcd::start("kubernetes") else { return };
    let mut client = etcd.client();
    let mut mix = Kubernetes::new("/mix", 20, 50);
    let fill = mix.chooser().filling();
    assert_eq!(report_of(&etcd, &mut mix, 16, fill).errors().len(), 0);
    let endpoints = [etcd.endpoint.clone()];
    let prefixes = mix.chooser().watched();
    let clock = Instant::now();
    let watching = Watches::open(&endpoints, &prefixes, 3).unwrap().listen(clock, Duration::ZERO);
    mix.stamp_values(clock);
    mix.forget_counts();
    // One at a time, so that no renewal overtakes another and no pod goes while it is read.
    let report = report_of(&etcd, &mut mix, 1, 600);
    assert_eq!((report.done(), report.errors().len()), (600, 0), "{report}");
    assert_eq!((report.count("retries"), report.count("absent")), (0, 0), "nobody else: {report}");
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    let kinds = report.json("kubernetes")["kinds"].clone();
    let count = |kind: &str| kinds[kind]["ops"].as_i64().unwrap();
    let pods = 50 + count("pod create") - count("pod delete");
    assert_eq!(response.count, 20 + pods, "{kinds}");
    let written = ["node lease", "pod create", "pod status", "pod delete"].map(count);
    let heard = watching.finish(Some(put_all(&mut client, &prefixes))).unwrap();
    let expected = |written: &[i64]| 3 * written.iter().sum::<i64>() as u64;
    assert_eq!(heard.events(), expected(&written), "{written:?}");
    assert_eq!(heard.timed(), expected(&written[..3]), "a delete says no time: {written:?}");
}

/// Puts these keys at one revision, which it returns.
fn put_all(client: &mut Client, keys: &[String]) -> i64 {
    let put = |key: &String| {
        let put = PutRequest { key: key.clone().into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let all = TxnRequest { success: keys.iter().map(put).collect(), ..Default::default() };
    let done: TxnResponse = client.unary(kv::TXN, &all).unwrap();
    done.header.unwrap().revision
}

#[test]
fn a_mix_of_kubernetes_tells_how_long_its_events_take() {
    let Some(etcd) = Etcd::start("events") else { return };
    etcd.client();
    let line = "kubernetes --nodes 20 --pods 30 --watchers 3 --rate 200 --seconds 1 --endpoint";
    let json = told(&format!("{line} {}", etcd.endpoint));
    let puts = ["node lease", "pod create", "pod status"].map(|kind| {
        json["kinds"][kind]["ops"].as_u64().unwrap_or_else(|| panic!("{kind}: {json}"))
    });
    let events = &json["put_to_event"];
    assert_eq!(events["events"], 3 * puts.iter().sum::<u64>(), "{json}");
    let at = |name: &str| events[name].as_f64().unwrap_or_else(|| panic!("{name}: {json}"));
    assert!(at("p50_us") > 0.0 && at("p50_us") <= at("max_us"), "{json}");
    assert!(at("max_us") < 20e6, "no event is older than the run: {json}");

    // What was put in the warm-up has no latency.
    let json = told(&format!("{line} {} --warm-up 1", etcd.endpoint));
    let events = json["put_to_event"]["events"].as_u64().unwrap();
    assert!(events < 3 * 250 && events > 0, "{json}");
}

/// Runs the program; its last line.
fn told(line: &str) -> Value {
    let words = line.split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(words).output().expect("it runs");
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{line}: {err} {out}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or(Value::String(out))
}

#[test]
fn every_work_runs_from_end_to_end() {
    let Some(etcd) = Etcd::start("works") else { return };
    let mut client = etcd.client();
    let (folder, endpoint, pid) = (etcd.folder.display(), &etcd.endpoint, etcd.process.id());
    let recording = format!("{folder}/recording");
    let asks = format!("--endpoint {endpoint} --pid {pid} --connections 2 --streams 3");
    for line in [
        "fill --keys 50 --value-size 10-90".into(),
        "put --keys 50 --ops 100 --order zipf".into(),
        format!("put --keys 50 --ops 100 --rate 500 --arrivals poisson --record {recording}"),
        "range --keys 50 --ops 100 --serializable --value-size 10".into(),
        "cas --keys 50 --ops 100 --order sequential".into(),
        "list --keys 50 --ops 10 --limit 20".into(),
        format!("replay {recording}"),
        "delete --keys 50 --ops 100 --order sequential".into(),
        "kubernetes --nodes 20 --pods 30 --seconds 1".into(),
        "watch --watchers 10 --keys 5 --seconds 1".into(),
        "keepalive --leases 10 --seconds 1".into(),
        "expire --leases 10 --ttl 3 --seconds 1 --rate 50".into(),
    ] {
        let json = told(&format!("{line} {asks}"));
        let work = line.split(' ').next().unwrap();
        assert_eq!((&json["work"], &json["scene"]["programs"][0]), (&work.into(), &"etcd".into()));
        let version = json["scene"]["servers"][0].as_str().unwrap();
        assert!(version.starts_with(&format!("{endpoint} version 3.")), "{version}");
        assert_ne!(json["scene"]["disk"], "unknown", "its process says which folder");
    }
    // The watch's five keys; what the mix had is gone, and so is what was deleted.
    let response: RangeResponse = client.unary(kv::RANGE, &everything()).unwrap();
    let left: Vec<_> = response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    assert!(left.iter().all(|key| key.starts_with("key-")), "{left:?}");
}

/// Intervals of a log, and whether any has a latency.
fn logged(file: &Path) -> (usize, bool) {
    let text = fs::read_to_string(file).unwrap();
    let line = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    // Start, length, largest, histogram.
    let largest = |line: &str| line.split(',').nth(2).unwrap().parse::<f64>().unwrap();
    let rows: Vec<_> = text.lines().filter(line).collect();
    (rows.len(), rows.iter().any(|row| largest(row) > 0.0))
}

#[test]
fn what_is_warmed_up_is_neither_counted_nor_logged() {
    let Some(etcd) = Etcd::start("warm-up") else { return };
    etcd.client();
    let log = etcd.folder.join("log");
    let asks = format!("--endpoint {} --warm-up 1 --hdr-log {}", etcd.endpoint, log.display());
    for (line, count) in [
        ("watch --watchers 5 --rate 200 --writers 10 --seconds 1", "/phases/0/puts"),
        ("expire --leases 5 --ttl 10 --rate 200 --writers 10 --seconds 1", "/phases/0/puts"),
    ] {
        let json = told(&format!("{line} {asks}"));
        let puts = json.pointer(count).and_then(Value::as_u64).unwrap_or_else(|| panic!("{json}"));
        assert!((100..=201).contains(&puts), "a second of two: {json}");
        assert!(json["phases"].as_array().unwrap().iter().all(|one| one["phase"] != "warm-up"));
        let (rows, any) = logged(&log);
        assert!(rows >= 1 && any, "{line}: {rows}");
    }
    let json = told(&format!("keepalive --leases 5 --seconds 1 {asks}"));
    let seconds = json["seconds"].as_f64().unwrap();
    assert!((1.0..2.0).contains(&seconds), "without the warm-up: {json}");
    let (rows, any) = logged(&log);
    assert!((1..=3).contains(&rows) && any, "{rows}");
}

#[test]
fn a_check_says_that_a_real_history_was_possible() {
    let Some(etcd) = Etcd::start("check") else { return };
    etcd.client();
    let history = etcd.folder.join("history");
    let (endpoint, history) = (&etcd.endpoint, history.display());
    let json = told(&format!("check --endpoint {endpoint} --history {history} --seconds 2"));
    let possible = json["possible"].as_str().unwrap_or_else(|| panic!("{json}"));
    assert_ne!(possible, "");
    let judged = told(&format!("judge --history {history}"));
    assert_eq!(judged.as_str().map(str::trim), Some(possible));
    // What was there before nobody can judge.
    let again = format!("check --endpoint {endpoint} --history {history} --seconds 2");
    let again =
        Command::new(env!("CARGO_BIN_EXE_loadgen")).args(again.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("this cluster is at revision"), "{said}");
}
