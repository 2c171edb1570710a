//! Every flag, once: its type, its default, and what becomes of it. Command line, environment,
//! configuration file, `--help` and `docs/flags.md` all read this table.
//!
//! It holds the union of etcd 3.4 to 3.7, with 3.7.1's defaults, so that a start line which has
//! grown over years still works or is told what does not.
//!
//! A flag is [`Disposition::Harmless`] only where ignoring it can lose no data, weaken no
//! protection and change no answer; using one is said in the log. Everything else that is not
//! built is refused.

use super::value::Kind::{self, *};

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It does what etcd's does.
    Works,
    /// Taken and ignored, because of this.
    Harmless(&'static str),
    /// Any value but its default is refused, because of this.
    Refused(&'static str),
    /// An older name of this flag.
    Renamed(&'static str),
    /// An older form of this feature gate.
    Gate(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as one would type it.
    pub default: &'static str,
    /// What becomes of it.
    pub disposition: Disposition,
    /// What it is for, one sentence; empty where the disposition says it all.
    pub help: &'static str,
}

/// A heading and the flags under it.
pub type Group = (&'static str, &'static [Flag]);

const UINT: Kind = Uint(u64::MAX);

const fn works(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, disposition: Disposition::Works, help }
}

const fn harmless(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    why: &'static str,
) -> Flag {
    Flag { name, kind, default, disposition: Disposition::Harmless(why), help: "" }
}

const fn refused(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, disposition: Disposition::Refused(why), help: "" }
}

const fn renamed(name: &'static str, to: &'static str) -> Flag {
    Flag { name, kind: Text, default: "", disposition: Disposition::Renamed(to), help: "" }
}

const fn gate(name: &'static str, gate: &'static str) -> Flag {
    Flag { name, kind: Bool, default: "false", disposition: Disposition::Gate(gate), help: "" }
}

const fn ignored(name: &'static str) -> Flag {
    harmless(name, Anything, "", "etcd 3 takes it and ignores it")
}

const TLS: &str = "TLS is not built yet";
const DISCOVERY_AUTH: &str = "a discovery service that asks for names is not built for yet";
const AUTH: &str = "authentication is not built yet";
const TRACING: &str = "distributed tracing is not built yet";
const NO_TRACING: &str = "it matters only with distributed tracing, which is refused";
const POLLED: &str = "the discovery service is asked with requests of their own";
const NO_BACKEND: &str = "it tunes etcd's backend file, and the engine here is another";
const NO_FILES: &str = "it counts etcd's files, and the log here is a ring of recycled segments";
const NO_COMPARING: &str = "comparing members' data is not built yet";
const KEPT_BY_WEIGHT: &str =
    "the newest 64 MiB of entries are kept for members that lag, however many that are";
const NO_SLOW_LOG: &str = "warnings about slow requests are not built yet";
const NO_PROXY: &str = "it matters only with the v2 proxy, which is refused";
const V2: &str = "the v2 API and its proxy are gone, as they are since etcd 3.6";

/// The table, in the order of `--help`.
pub const TABLE: &[Group] = &[
    ("Member", MEMBER),
    ("Clustering", CLUSTERING),
    ("Security", SECURITY),
    ("Auth", AUTH_FLAGS),
    ("Profiling and Monitoring", MONITORING),
    ("Logging", LOGGING),
    ("Distributed tracing", TRACING_FLAGS),
    ("Features", FEATURES),
    ("Unsafe feature", UNSAFE),
    ("Ringleader", RINGLEADER),
    ("Tests only: they make a member slow, and are no good for anything else", TESTING),
    ("Old names", OLD),
];

const MEMBER: &[Flag] = &[
    works("name", Text, "default", "This member's name, for people."),
    works(
        "data-dir",
        Text,
        "",
        "The directory that holds everything; ${name}.etcd where it is not given.",
    ),
    works("wal-dir", Text, "", "A directory of its own for the log."),
    works(
        "config-file",
        Text,
        "",
        "A YAML file with all settings; every other flag and ETCD_ variable is then ignored.",
    ),
    works("version", Bool, "false", "Print the versions and exit."),
    works(
        "snapshot-count",
        UINT,
        "10000",
        "Committed entries between two checkpoints, at most; 0 is the default.",
    ),
    works("heartbeat-interval", UINT, "100", "Milliseconds between two heartbeats of the leader."),
    works(
        "election-timeout",
        UINT,
        "1000",
        "Milliseconds without a leader before an election; 5 heartbeats to 50000.",
    ),
    works(
        "initial-election-tick-advance",
        Bool,
        "true",
        "Let a member that starts stand for election sooner where no leader is heard.",
    ),
    works(
        "listen-peer-urls",
        Urls,
        "http://localhost:2380",
        "Where other members may connect: IP addresses or localhost.",
    ),
    works(
        "listen-client-urls",
        Urls,
        "http://localhost:2379",
        "Where clients may connect: IP addresses or localhost.",
    ),
    refused("listen-client-http-urls", Urls, "", "separate HTTP listeners are not built yet"),
    harmless("max-snapshots", UINT, "5", NO_FILES),
    harmless("max-wals", UINT, "5", NO_FILES),
    refused("memory-mlock", Bool, "false", "locking memory is not built yet"),
    works(
        "quota-backend-bytes",
        Int,
        "0",
        "Bytes of data before writes are refused with the NOSPACE alarm; 0 is 2 GiB, below 0 is no quota.",
    ),
    harmless("backend-bbolt-freelist-type", Text, "", NO_BACKEND),
    harmless("backend-batch-interval", Duration, "0s", NO_BACKEND),
    harmless("backend-batch-limit", Int, "0", NO_BACKEND),
    works("max-txn-ops", UINT, "128", "Operations in one transaction, at most."),
    works("max-request-bytes", UINT, "1572864", "Bytes in one request, at most."),
    works(
        "max-concurrent-streams",
        Uint(u32::MAX as u64),
        "4294967295",
        "Streams that one connection may have open, at most.",
    ),
    refused(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        "judging how often clients ping is not built yet",
    ),
    refused("grpc-keepalive-interval", Duration, "2h0m0s", "pinging clients is not built yet"),
    refused("grpc-keepalive-timeout", Duration, "20s", "pinging clients is not built yet"),
    refused(
        "socket-reuse-port",
        Bool,
        "false",
        "sharing a port with another process is not built yet",
    ),
    harmless(
        "socket-reuse-address",
        Bool,
        "false",
        "every listener here sets SO_REUSEADDR already",
    ),
    harmless(
        "enable-grpc-gateway",
        Bool,
        "true",
        "the JSON gateway is not built yet, so there is nothing to switch off",
    ),
    works(
        "raft-read-timeout",
        Duration,
        "5s",
        "How long a connection with another member may bring nothing; at least 5s.",
    ),
    works(
        "raft-write-timeout",
        Duration,
        "5s",
        "How long another member may take nothing of what is sent to it; at least 5s.",
    ),
    works(
        "feature-gates",
        Gates,
        "",
        "Gate=true or Gate=false, with commas; docs/flags.md says which.",
    ),
];

const CLUSTERING: &[Flag] = &[
    works(
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        "What other members are told to connect to.",
    ),
    works(
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        "The members of the cluster, name=URL with commas.",
    ),
    works(
        "initial-cluster-state",
        Choice(&["new", "existing"]),
        "new",
        "Whether a member without data starts a cluster (new) or joins one (existing).",
    ),
    works(
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        "Goes into the ids of a new cluster, so that two clusters with the same addresses differ.",
    ),
    works(
        "advertise-client-urls",
        Urls,
        "http://localhost:2379",
        "What clients are told to connect to.",
    ),
    refused("discovery", Text, "", "v2 discovery is gone, as it is since etcd 3.7"),
    works("discovery-token", Text, "", "The name of a new cluster in the discovery service."),
    works(
        "discovery-endpoints",
        List,
        "",
        "Where the discovery service is, an etcd with its JSON gateway: host:port or http://host:port.",
    ),
    works(
        "discovery-dial-timeout",
        Duration,
        "2s",
        "How long a connection to the discovery service may take.",
    ),
    works(
        "discovery-request-timeout",
        Duration,
        "5s",
        "How long a request to the discovery service may take after that.",
    ),
    harmless("discovery-keepalive-time", Duration, "2s", POLLED),
    harmless("discovery-keepalive-timeout", Duration, "6s", POLLED),
    refused("discovery-insecure-transport", Bool, "true", TLS),
    refused("discovery-insecure-skip-tls-verify", Bool, "false", TLS),
    refused("discovery-cert", Text, "", TLS),
    refused("discovery-key", Text, "", TLS),
    refused("discovery-cacert", Text, "", TLS),
    refused("discovery-user", Text, "", DISCOVERY_AUTH),
    refused("discovery-password", Text, "", DISCOVERY_AUTH),
    refused("discovery-fallback", Choice(&["exit", "proxy"]), "exit", V2),
    refused("discovery-proxy", Text, "", "v2 discovery is gone, as it is since etcd 3.7"),
    works(
        "discovery-srv",
        Text,
        "",
        "The DNS domain whose records of etcd-server and etcd-server-ssl name the members.",
    ),
    works("discovery-srv-name", Text, "", "What follows the name of these services, after a dash."),
    works(
        "strict-reconfig-check",
        Bool,
        "true",
        "Refuse changes of membership that would lose the quorum.",
    ),
    works(
        "pre-vote",
        Bool,
        "true",
        "Ask before an election whether it could be won, so that a returning member disturbs nobody.",
    ),
    refused(
        "auto-compaction-retention",
        Text,
        "0",
        "automatic compaction is not built yet; compact with etcdctl",
    ),
    harmless(
        "auto-compaction-mode",
        Text,
        "periodic",
        "it matters only with --auto-compaction-retention, which is refused",
    ),
    harmless(
        "v2-deprecation",
        Choice(&[
            "",
            "not-yet",
            "write-only",
            "write-only-skip-check",
            "write-only-drop-data",
            "gone",
        ]),
        "",
        "there is no v2 store here, and etcd 3.7 ignores it too",
    ),
];

const SECURITY: &[Flag] = &[
    refused("cert-file", Text, "", TLS),
    refused("key-file", Text, "", TLS),
    refused("client-cert-auth", Bool, "false", TLS),
    refused("client-cert-file", Text, "", TLS),
    refused("client-key-file", Text, "", TLS),
    refused("client-crl-file", Text, "", TLS),
    refused("client-cert-allowed-hostname", List, "", TLS),
    refused("trusted-ca-file", Text, "", TLS),
    refused("auto-tls", Bool, "false", TLS),
    refused("peer-cert-file", Text, "", TLS),
    refused("peer-key-file", Text, "", TLS),
    refused("peer-client-cert-auth", Bool, "false", TLS),
    refused("peer-client-cert-file", Text, "", TLS),
    refused("peer-client-key-file", Text, "", TLS),
    refused("peer-trusted-ca-file", Text, "", TLS),
    refused("peer-cert-allowed-cn", List, "", TLS),
    refused("peer-cert-allowed-hostname", List, "", TLS),
    refused("peer-auto-tls", Bool, "false", TLS),
    refused("peer-crl-file", Text, "", TLS),
    refused("peer-skip-client-san-verification", Bool, "false", TLS),
    refused("self-signed-cert-validity", UINT, "1", TLS),
    refused("cipher-suites", List, "", TLS),
    refused("tls-min-version", Text, "TLS1.2", TLS),
    refused("tls-max-version", Text, "", TLS),
    refused("cors", List, "*", "judging the origin of a request is not built yet"),
    refused("host-whitelist", List, "*", "judging the Host of a request is not built yet"),
];

const AUTH_FLAGS: &[Flag] = &[
    refused("auth-token", Text, "simple", AUTH),
    refused("bcrypt-cost", UINT, "10", AUTH),
    refused("auth-token-ttl", UINT, "300", AUTH),
];

const MONITORING: &[Flag] = &[
    refused("enable-pprof", Bool, "false", "profiling over HTTP is not built yet"),
    refused("metrics", Text, "basic", "extensive metrics are not built yet"),
    refused(
        "listen-metrics-urls",
        Urls,
        "",
        "separate listeners for metrics are not built yet; /metrics is on the client URLs",
    ),
];

const LOGGING: &[Flag] = &[
    works("logger", Text, "zap", "The form of log lines; there is one."),
    works(
        "log-outputs",
        List,
        "default",
        "Where log lines go: default or stderr, stdout, /dev/null, or paths of files; systemd/journal is stderr here.",
    ),
    works(
        "log-level",
        Text,
        "info",
        "The least level to log: debug, info, warn, error, panic or fatal.",
    ),
    works("log-format", Text, "json", "json or console."),
    refused(
        "enable-log-rotation",
        Bool,
        "false",
        "rotating logs is not built yet; use logrotate with copytruncate",
    ),
    harmless(
        "log-rotation-config-json",
        Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "it matters only with --enable-log-rotation, which is refused",
    ),
    harmless("warning-unary-request-duration", Duration, "300ms", NO_SLOW_LOG),
];

const TRACING_FLAGS: &[Flag] = &[
    refused("enable-distributed-tracing", Bool, "false", TRACING),
    harmless("distributed-tracing-address", Text, "localhost:4317", NO_TRACING),
    harmless("distributed-tracing-service-name", Text, "etcd", NO_TRACING),
    harmless("distributed-tracing-instance-id", Text, "", NO_TRACING),
    harmless("distributed-tracing-sampling-rate", Int, "0", NO_TRACING),
];

const FEATURES: &[Flag] = &[
    harmless("corrupt-check-time", Duration, "0s", NO_COMPARING),
    harmless(
        "compact-hash-check-time",
        Duration,
        "1m0s",
        "it matters only with the feature gate CompactHashCheck",
    ),
    harmless("compaction-batch-limit", Int, "0", NO_BACKEND),
    harmless("compaction-sleep-interval", Duration, "0s", NO_BACKEND),
    works(
        "watch-progress-notify-interval",
        Duration,
        "0s",
        "Between two words of progress to watchers that want them; 0 is 10 minutes, and less than 100ms is 100ms.",
    ),
    harmless("warning-apply-duration", Duration, "100ms", NO_SLOW_LOG),
    harmless("bootstrap-defrag-threshold-megabytes", UINT, "0", NO_BACKEND),
    refused(
        "max-learners",
        Int,
        "1",
        "a cluster has one learner at a time, and any other number is not built yet",
    ),
    harmless("downgrade-check-time", Duration, "5s", "downgrades are not built yet"),
    harmless("snapshot-catchup-entries", UINT, "5000", KEPT_BY_WEIGHT),
];

const UNSAFE: &[Flag] = &[
    refused("force-new-cluster", Bool, "false", "leaving a lost cluster behind is not built yet"),
    refused(
        "unsafe-no-fsync",
        Bool,
        "false",
        "acknowledging writes that are not durable is not built, and will not be",
    ),
];

const RINGLEADER: &[Flag] = &[
    works(
        "ringleader-shards",
        Uint(crate::limits::CORES_MAX as u64),
        "0",
        "Cores that serve clients; 0 is one for each core that may be used.",
    ),
    works(
        "ringleader-cores",
        Text,
        "",
        "The cores to use, such as 0,2-5; all that the process may use where it is not given.",
    ),
    works(
        "ringleader-checkpoint-bytes",
        UINT,
        "134217728",
        "Bytes of log after which a checkpoint is due: what a restart replays; 1 MiB to 16 GiB.",
    ),
    works(
        "ringleader-checkpoint-interval",
        Duration,
        "1m0s",
        "A change is in a checkpoint after this long at the latest; 1s or more.",
    ),
    works(
        "ringleader-index-memory-bytes",
        UINT,
        "0",
        "Memory that changed pages of the index may take before a checkpoint is due, 16 MiB or more; 0 is a 32nd of the machine's memory, 1 GiB at most.",
    ),
];

const TESTING: &[Flag] = &[
    works(
        "testing-sync-delay",
        Duration,
        "0s",
        "How much longer every sync of the disk takes, for the log and for checkpoints; at most 10s.",
    ),
    works(
        "testing-sync-delay-tail",
        Text,
        "",
        "P:DURATION, such as 0.001:200ms: with the probability P (0 to 1) a sync takes so much longer instead.",
    ),
    works(
        "testing-peer-delay",
        Duration,
        "0s",
        "How much later all that this member sends to other members leaves, in order; at most 10s.",
    ),
];

const OLD: &[Flag] = &[
    gate("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    gate("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    renamed("experimental-backend-bbolt-freelist-type", "backend-bbolt-freelist-type"),
    renamed(
        "experimental-bootstrap-defrag-threshold-megabytes",
        "bootstrap-defrag-threshold-megabytes",
    ),
    renamed("experimental-compact-hash-check-time", "compact-hash-check-time"),
    renamed("experimental-compaction-batch-limit", "compaction-batch-limit"),
    renamed("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    renamed("experimental-corrupt-check-time", "corrupt-check-time"),
    renamed("experimental-distributed-tracing-address", "distributed-tracing-address"),
    renamed("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    renamed("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    renamed("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    renamed("experimental-downgrade-check-time", "downgrade-check-time"),
    renamed("experimental-enable-distributed-tracing", "enable-distributed-tracing"),
    renamed("experimental-max-learners", "max-learners"),
    renamed("experimental-memory-mlock", "memory-mlock"),
    renamed("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification"),
    renamed("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    renamed("experimental-warning-apply-duration", "warning-apply-duration"),
    renamed("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    renamed("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    renamed("log-output", "log-outputs"),
    refused("enable-v2", Bool, "false", V2),
    refused("experimental-enable-v2v3", Text, "", V2),
    refused("proxy", Choice(&["off", "readonly", "on"]), "off", V2),
    harmless("proxy-failure-wait", UINT, "5000", NO_PROXY),
    harmless("proxy-refresh-interval", UINT, "30000", NO_PROXY),
    harmless("proxy-dial-timeout", UINT, "1000", NO_PROXY),
    harmless("proxy-write-timeout", UINT, "5000", NO_PROXY),
    harmless("proxy-read-timeout", UINT, "0", NO_PROXY),
    harmless("debug", Bool, "false", "it is gone since etcd 3.5; use --log-level=debug"),
    harmless("log-package-levels", Text, "", "it is gone since etcd 3.5; use --log-level"),
    harmless("next-cluster-version-compatible", Bool, "false", "it is gone since etcd 3.5"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];

/// Every flag, in the order of [`TABLE`].
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    TABLE.iter().flat_map(|(_, flags)| *flags)
}

/// The flag of this name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

impl Flag {
    /// The flag that this one means: itself, or the one that took over its name.
    pub(super) fn meant(&'static self) -> &'static Flag {
        match self.disposition {
            Disposition::Renamed(to) => find(to).expect("a new name is in the table; tested"),
            Disposition::Gate(_) => find("feature-gates").expect("it is in the table; tested"),
            _ => self,
        }
    }

    /// The environment variable that sets it: `ETCD_` and the name in capitals.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The type of its value; a renamed flag has that of its new name.
    pub(super) fn takes(&'static self) -> Kind {
        match self.disposition {
            Disposition::Renamed(_) => self.meant().kind,
            _ => self.kind,
        }
    }
}
