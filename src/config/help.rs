//! What `--help` and `--version` print, and what follows a command line that makes no sense.

use super::table::{Disposition, Flag, TABLE};

/// The version of etcd that this server stands in for; clients switch features on by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// This server's own version.
pub const RINGLEADER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so in `RINGLEADER_GIT_SHA`.
pub const GIT_SHA: &str = match option_env!("RINGLEADER_GIT_SHA") {
    Some(sha) => sha,
    None => "not recorded",
};

/// The four lines etcd prints, which tools parse, and ours.
pub(super) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {GIT_SHA}\nGo Version: none (Rust)\n\
         Go OS/Arch: {}/{}\nRingleader Version: {RINGLEADER_VERSION}\n",
        std::env::consts::OS,
        go_arch(std::env::consts::ARCH),
    )
}

/// Go's name for a processor.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// How to start it, in a few lines.
pub(super) const USAGE: &str = "Usage:

  ringleader [flags]
    Start a server that speaks etcd's protocol.

  ringleader inspect DIR
    Check a data directory and say what is in it; inspect --help says more.

  ringleader restore DIR --to-revision N --out NEW
    Make a data directory as another one was at an earlier revision; restore --help says more.

  ringleader --version
    Show the versions.

  ringleader -h | --help
    Show every flag.

  ringleader --config-file FILE
    Take all settings from a YAML file. Every other flag and all ETCD_ variables are then ignored.
    Durations in it are whole numbers of nanoseconds; --heartbeat-interval and --election-timeout
    are milliseconds there too.

Every flag has an environment variable: --data-dir is ETCD_DATA_DIR.
";

/// [`USAGE`] and the whole table.
pub(super) fn help() -> String {
    let mut text = USAGE.to_owned();
    for (group, flags) in TABLE {
        text += &format!("\n{group}:\n");
        for flag in *flags {
            text += &format!("  {}\n    {}\n", head(flag), sentence(flag));
        }
    }
    text
}

fn head(flag: &Flag) -> String {
    match flag.disposition {
        Disposition::Renamed(_) => format!("--{}", flag.name),
        _ if flag.kind.is_bare() && flag.default.is_empty() => format!("--{}", flag.name),
        _ => format!("--{} '{}'", flag.name, flag.default),
    }
}

/// What a flag does or why it does nothing, one sentence.
pub(super) fn sentence(flag: &Flag) -> String {
    match flag.disposition {
        Disposition::Works => flag.help.to_owned(),
        Disposition::Harmless(why) => format!("Ignored: {why}."),
        Disposition::Refused(why) => format!("Refused, save for its default: {why}."),
        Disposition::Renamed(to) => format!("Old name of --{to}."),
        Disposition::Gate(gate) => format!("Old form of --feature-gates={gate}=true."),
    }
}
