//! What a shard counts, and everybody's numbers in Prometheus' text form under etcd's names
//! (checked against etcd's own `/metrics`; several `_total` are gauges there, and so here).

use super::Meters;
use crate::{
    api::{Edge, Method, method::METHODS},
    metrics::{Counter, Gauge, Histogram, LeaseMeters, PeerMeter, PeerMeters},
    store::View,
};
use std::fmt::Write;

/// gRPC has codes 0 to 16.
const CODES: usize = 17;

/// Go's names of the codes, as etcd's label `grpc_code` shows them.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug, Default)]
struct MethodMeters {
    started: Counter,
    handled: [Counter; CODES],
}

/// What one shard counts. One writer, any reader.
#[derive(Debug, Default)]
pub struct ShardMeters {
    methods: [MethodMeters; METHODS.len()],
    received_bytes: Counter,
    sent_bytes: Counter,
    watch_streams: Gauge,
    watchers: Gauge,
    watchers_behind: Gauge,
    waited: Counter,
}

impl ShardMeters {
    /// A request has come in with a body of `bytes`.
    pub(super) fn started(&self, method: Method, bytes: usize) {
        self.methods[method as usize].started.add(1);
        self.received_bytes.add(bytes as u64);
    }

    /// One more message has come in a stream, of `bytes`.
    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.add(bytes as u64);
    }

    /// One more message goes out in a stream, of `bytes`.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.add(bytes as u64);
    }

    /// How many watch, and how many of them are told from the history.
    pub(super) fn watching(&self, streams: usize, watchers: usize, behind: usize) {
        self.watch_streams.set(streams as u64);
        self.watchers.set(watchers as u64);
        self.watchers_behind.set(behind as u64);
    }

    /// A read was answered by a thread beside, because it would have waited for the disk.
    pub(super) fn waited(&self) {
        self.waited.add(1);
    }

    /// It was answered with `code` and a body of `bytes`.
    pub(super) fn handled(&self, method: Method, code: u8, bytes: usize) {
        if let Some(counter) = self.methods[method as usize].handled.get(usize::from(code)) {
            counter.add(1);
        }
        self.sent_bytes.add(bytes as u64);
    }
}

/// Everything, as a scraper reads it.
pub fn exposition(meters: &Meters, view: &View, edge: &Edge) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    server(&mut page, meters, view, edge);
    disk(&mut page, meters, view);
    leases(&mut page, &meters.leases);
    watches(&mut page, meters);
    peers(&mut page, &meters.peers, edge);
    grpc(&mut page, meters);
    process(&mut page);
    page.0
}

fn server(page: &mut Page, meters: &Meters, view: &View, edge: &Edge) {
    let leads = view.raft.leader == edge.member;
    let learns = view.is_learner(edge.member);
    page.gauge("etcd_server_has_leader", "Whether there is a leader.", view.raft.leader.0 != 0);
    page.gauge("etcd_server_is_leader", "Whether this member leads.", leads);
    page.gauge("etcd_server_is_learner", "Whether this member is a learner.", learns);
    page.labelled("etcd_server_id", "gauge", "This member.", "server_id", &edge.member.to_string());
    let version = crate::api::API_VERSION;
    page.labelled("etcd_server_version", "gauge", "Version.", "server_version", version);
    if let Some(version) = &view.cluster.version {
        let minor = version.rsplit_once('.').map_or(version.as_str(), |(minor, _patch)| minor);
        page.labelled("etcd_cluster_version", "gauge", "Agreed.", "cluster_version", minor);
    }
    let node = &meters.node;
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Leaders seen.",
        node.leader_changes.get(),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "Newest committed index.",
        node.committed_index.get(),
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "Newest applied index.",
        node.applied_index.get(),
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Requests not yet proposed.",
        node.proposals_pending.get(),
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Requests refused by raft.",
        node.proposals_failed.get(),
    );
    let quota = edge.quota.bytes().unwrap_or(0);
    page.gauge("etcd_server_quota_backend_bytes", "Quota.", quota);
}

fn disk(page: &mut Page, meters: &Meters, view: &View) {
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the files.", view.disk_bytes);
    page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes in use.", view.live_bytes);
    let current = view.revision.0;
    page.gauge("etcd_debugging_mvcc_current_revision", "Newest revision.", current);
    let compacted = view.tree.reader().compacted().0;
    page.gauge("etcd_debugging_mvcc_compact_revision", "Compacted through.", compacted);
    page.gauge("etcd_debugging_mvcc_keys_total", "Live keys.", view.keys());
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "From handing an append to the disk until it is durable.",
        &meters.node.log_sync,
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "From beginning a checkpoint until its superblock is durable.",
        &meters.node.checkpoint,
    );
    page.counter(
        "ringleader_cold_reads_total",
        "Reads that waited for pages that were not in memory.",
        meters.shards.iter().map(|shard| shard.waited.get()).sum::<u64>(),
    );
}

fn watches(page: &mut Page, meters: &Meters) {
    let sum = |count: &dyn Fn(&ShardMeters) -> u64| meters.shards.iter().map(count).sum::<u64>();
    page.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Open watch streams.",
        sum(&|shard| shard.watch_streams.get()),
    );
    page.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Watchers.",
        sum(&|shard| shard.watchers.get()),
    );
    page.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watchers that are told from the history.",
        sum(&|shard| shard.watchers_behind.get()),
    );
}

fn leases(page: &mut Page, meters: &LeaseMeters) {
    page.counter("etcd_debugging_lease_granted_total", "Leases granted.", meters.granted.get());
    page.counter("etcd_debugging_lease_revoked_total", "Leases gone.", meters.revoked.get());
    page.counter("etcd_debugging_lease_renewed_total", "Renewals.", meters.renewed.get());
    page.histogram("etcd_debugging_lease_ttl_total", "TTLs granted, seconds.", &meters.ttl);
    page.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases expired.",
        meters.expired.get(),
    );
}

fn peers(page: &mut Page, meters: &PeerMeters, edge: &Edge) {
    /// A series with one value for each other member: name, kind, help, first label, value.
    type Row = (&'static str, &'static str, &'static str, bool, fn(&PeerMeter) -> u64);
    const ROWS: [Row; 6] = [
        ("etcd_network_active_peers", "gauge", "Members in touch.", true, |of| of.active.get()),
        ("etcd_network_disconnected_peers_total", "counter", "Losses of touch.", true, |of| {
            of.disconnected.get()
        }),
        ("etcd_network_peer_sent_bytes_total", "counter", "Bytes sent to members.", false, |of| {
            of.sent_bytes.get()
        }),
        ("etcd_network_peer_received_bytes_total", "counter", "Bytes from members.", false, |of| {
            of.received_bytes.get()
        }),
        ("etcd_network_peer_sent_failures_total", "counter", "Sends that failed.", false, |of| {
            of.sent_failures.get()
        }),
        (
            "etcd_network_peer_received_failures_total",
            "counter",
            "Receipts that failed.",
            false,
            |of| of.received_failures.get(),
        ),
    ];
    let all = meters.all();
    if all.is_empty() {
        return;
    }
    for (name, kind, help, both, value) in ROWS {
        page.head(name, kind, help);
        let label = if name.contains("received") { "From" } else { "To" };
        for (member, meter) in &all {
            let labels = match both {
                true => format!("Local=\"{}\",Remote=\"{member}\"", edge.member),
                false => format!("{label}=\"{member}\""),
            };
            page.line(format_args!("{name}{{{labels}}} {}", value(meter)));
        }
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    page.head(name, "histogram", "From a question to a member until its answer.");
    for (member, meter) in &all {
        page.buckets(name, &format!("To=\"{member}\""), &meter.round_trip);
    }
}

fn grpc(page: &mut Page, meters: &Meters) {
    let sum = |count: &dyn Fn(&ShardMeters) -> u64| meters.shards.iter().map(count).sum::<u64>();
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes of request messages.",
        sum(&|shard| shard.received_bytes.get()),
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Bytes of response messages.",
        sum(&|shard| shard.sent_bytes.get()),
    );
    page.head("grpc_server_started_total", "counter", "RPCs begun.");
    for (at, method) in METHODS.iter().enumerate() {
        let started = sum(&|shard| shard.methods[at].started.get());
        let (kind, service, name) = method.labels();
        page.line(format_args!(
            "grpc_server_started_total{{grpc_method=\"{name}\",grpc_service=\"{service}\",\
             grpc_type=\"{kind}\"}} {started}"
        ));
    }
    page.head("grpc_server_handled_total", "counter", "RPCs answered, by code.");
    for (at, method) in METHODS.iter().enumerate() {
        let (kind, service, name) = method.labels();
        for (code, code_name) in CODE_NAMES.iter().enumerate() {
            let handled = sum(&|shard| shard.methods[at].handled[code].get());
            page.line(format_args!(
                "grpc_server_handled_total{{grpc_code=\"{code_name}\",grpc_method=\"{name}\",\
                 grpc_service=\"{service}\",grpc_type=\"{kind}\"}} {handled}"
            ));
        }
    }
}

/// What the kernel says of this process; a figure it does not say is left out.
fn process(page: &mut Page) {
    let Some(process) = crate::io::process::usage() else { return };
    page.gauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
    page.counter("process_cpu_seconds_total", "CPU time, seconds.", process.cpu_seconds);
    page.gauge("process_open_fds", "Open descriptors.", process.open_files);
    page.gauge("process_max_fds", "Most descriptors.", process.open_files_max);
    page.gauge("process_start_time_seconds", "Start, Unix seconds.", process.start_seconds);
}

struct Page(String);

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a string takes everything");
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.head(name, "gauge", help);
        self.line(format_args!("{name} {}", value.into().0));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.head(name, "counter", help);
        self.line(format_args!("{name} {}", value.into().0));
    }

    /// A series that says something by its label.
    fn labelled(&mut self, name: &str, kind: &str, help: &str, label: &str, value: &str) {
        self.head(name, kind, help);
        self.line(format_args!("{name}{{{label}=\"{value}\"}} 1"));
    }

    fn histogram<const FIRST_MICROS: u64, const BUCKETS: usize>(
        &mut self,
        name: &str,
        help: &str,
        histogram: &Histogram<FIRST_MICROS, BUCKETS>,
    ) {
        self.head(name, "histogram", help);
        self.buckets(name, "", histogram);
    }

    /// One histogram of a series, with the labels that tell it from the others.
    fn buckets<const FIRST_MICROS: u64, const BUCKETS: usize>(
        &mut self,
        name: &str,
        labels: &str,
        histogram: &Histogram<FIRST_MICROS, BUCKETS>,
    ) {
        let (comma, own) = match labels {
            "" => ("", String::new()),
            labels => (",", format!("{{{labels}}}")),
        };
        for (bucket, count) in histogram.cumulative().iter().enumerate() {
            let bound = Histogram::<FIRST_MICROS, BUCKETS>::bound(bucket).as_secs_f64();
            self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"));
        }
        let count = histogram.count();
        self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum{own} {}", histogram.sum_seconds()));
        self.line(format_args!("{name}_count{own} {count}"));
    }
}

/// A number as Prometheus writes it.
struct Number(String);

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self(u8::from(value).to_string())
    }
}
impl From<u8> for Number {
    fn from(value: u8) -> Self {
        Self(value.to_string())
    }
}
impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}
impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(value.to_string())
    }
}
impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value.to_string())
    }
}
