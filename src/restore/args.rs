//! What stands behind `ringleader restore`.

use crate::{
    config::{Url, UrlsMap},
    inspect::Places,
    node::recover::Newborn,
    runtime::bootstrap,
    types::{ClusterId, Revision},
};
use std::{ffi::OsString, path::PathBuf};

pub(super) const HELP: &str = "Usage:

  ringleader restore DIR --to-revision N --out NEW [flags]
    Make the data directory NEW: the keys, their history and their leases as they were at revision N
    in the data directory DIR, for a new cluster that knows nothing of the old one.

Flags:

  --to-revision N       From the revision that DIR is compacted at to its newest; which these are is
                        told where N is another one.
  --out NEW             A directory that does not exist, or is empty.
  --wal-dir DIR         What the member of DIR was started with, where it was.
  --name NAME           Name of the member that will run on NEW. (default \"default\")
  --initial-cluster NAME=URL,...
                        All members of the new cluster. (default \"NAME=URLS\", this one alone)
  --initial-advertise-peer-urls URLS
                        Where the others reach it. (default \"http://localhost:2380\")
  --initial-cluster-token TOKEN
                        Tells clusters apart. (default: of DIR's cluster and N)
  --bump-revision COUNT --mark-compacted
                        Leave out that many revisions behind N, and take all up to there for
                        compacted: clients that have seen more than N read everything anew.

Nothing in DIR is changed. A member may run on it meanwhile; what it commits behind N is not in NEW.

Exit codes: 0 done; 2 DIR is damaged, and it says where; 1 it could not.
";

/// A line that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Help,
    Restore(Box<Order>),
}

/// What is to be made of what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) places: Places,
    pub(super) revision: Revision,
    /// How many are left out behind it.
    pub(super) skipped: i64,
    pub(super) out: PathBuf,
    pub(super) name: String,
    advertised: Vec<Url>,
    cluster: UrlsMap,
    token: Option<String>,
}

impl Order {
    /// Who the member is that will run on it.
    ///
    /// # Errors
    /// What is wrong with the flags, in etcd's words where it has them.
    pub(super) fn newborn(&self, of: ClusterId) -> Result<Newborn, String> {
        let Self { name, advertised, cluster, token, revision, .. } = self;
        let token = token.clone().unwrap_or_else(|| format!("restored-{of}-{}", revision.0));
        let newborn = bootstrap::restored(name, advertised, cluster, &token)?;
        if newborn.cluster == of {
            return Err(format!(
                "the new cluster would be taken for the one of {}: with these URLs \
                 --initial-cluster-token has to be another one",
                self.places.dir.display()
            ));
        }
        Ok(newborn)
    }
}

/// What was typed.
#[derive(Default)]
struct Typed {
    dir: Option<OsString>,
    wal_dir: Option<OsString>,
    out: Option<OsString>,
    revision: Option<OsString>,
    name: Option<OsString>,
    advertised: Option<OsString>,
    cluster: Option<OsString>,
    token: Option<OsString>,
    bump: Option<OsString>,
    compacted: bool,
}

pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    let mut args = args.into_iter();
    let mut typed = Typed::default();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix('-')) else {
            if typed.dir.replace(arg.clone()).is_some() {
                return Err(format!("{}: one directory at a time", arg.display()));
            }
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (flag, None),
        };
        if matches!(name, "h" | "help") {
            return Ok(Asked::Help);
        }
        if name == "mark-compacted" && given.as_ref().is_none_or(|value| value == "true") {
            typed.compacted = true;
            continue;
        }
        let slot = typed.slot(name).ok_or(format!("there is no --{name}"))?;
        let value = given.or_else(|| args.next()).ok_or(format!("--{name} needs a value"))?;
        if slot.replace(value).is_some() {
            return Err(format!("--{name} is given twice"));
        }
    }
    typed.order().map(|order| Asked::Restore(Box::new(order)))
}

impl Typed {
    fn slot(&mut self, flag: &str) -> Option<&mut Option<OsString>> {
        Some(match flag {
            "to-revision" => &mut self.revision,
            "out" => &mut self.out,
            "wal-dir" => &mut self.wal_dir,
            "name" => &mut self.name,
            "initial-advertise-peer-urls" => &mut self.advertised,
            "initial-cluster" => &mut self.cluster,
            "initial-cluster-token" => &mut self.token,
            "bump-revision" => &mut self.bump,
            _ => return None,
        })
    }

    fn order(self) -> Result<Order, String> {
        let dir = PathBuf::from(self.dir.ok_or("which directory?")?);
        let wal_dir = self.wal_dir.map(PathBuf::from);
        let revision = self.revision.ok_or("to which revision? --to-revision tells")?;
        let revision = number("to-revision", &revision)?;
        let skipped = self.bump.map(|bump| number("bump-revision", &bump)).transpose()?;
        let skipped = skipped.unwrap_or(0);
        if self.compacted != (skipped > 0) {
            return Err("--bump-revision and --mark-compacted go together".into());
        }
        if revision.checked_add(skipped).is_none() {
            return Err(format!("--bump-revision={skipped}: there are no such revisions"));
        }
        let out = PathBuf::from(self.out.ok_or("where to? --out tells")?);
        let name = text("name", self.name)?.unwrap_or_else(|| "default".into());
        let advertised = text("initial-advertise-peer-urls", self.advertised)?;
        let advertised = Url::parse_list(advertised.as_deref().unwrap_or("http://localhost:2380"))?;
        let cluster = match text("initial-cluster", self.cluster)? {
            Some(cluster) => UrlsMap::parse(&cluster)?,
            None => UrlsMap::one(&name, &advertised),
        };
        let token = text("initial-cluster-token", self.token)?;
        let places = Places { dir, wal_dir };
        let revision = Revision(revision);
        Ok(Order { places, revision, skipped, out, name, advertised, cluster, token })
    }
}

fn number(flag: &str, value: &OsString) -> Result<i64, String> {
    let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("--{flag}={}: a number above 0 is needed", value.display()))
}

fn text(flag: &str, value: Option<OsString>) -> Result<Option<String>, String> {
    let wrong = |value: OsString| format!("--{flag}={}: text is needed", value.display());
    value.map(|value| value.into_string().map_err(wrong)).transpose()
}
