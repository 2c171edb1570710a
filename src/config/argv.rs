//! The command line, read by the rules of Go's `flag` package.
//!
//! `-x v`, `--x v`, `-x=v` and `--x=v` are one; a flag that takes true or false never takes the
//! next argument; `--`, `-` and the first argument that is no flag end the flags.

use super::{
    settings::Settings,
    table::{self, Flag},
};

/// Why reading the command line stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// `-h` or `--help`.
    Help,
    /// It cannot be understood; the sentence begins with Go's.
    Misuse(String),
    /// An argument that is no flag.
    NoFlag(String),
}

/// Puts every flag into `settings`, in order, so that the last of a name wins.
pub(super) fn read(args: &[String], settings: &mut Settings) -> Result<(), Halt> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(body) = arg.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(Halt::NoFlag(arg.clone()));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            return rest.next().map_or(Ok(()), |arg| Err(Halt::NoFlag(arg.clone())));
        }
        if body.starts_with(['-', '=']) {
            return Err(Halt::Misuse(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let flag = named(name)?;
        let value = match value {
            Some(value) => value,
            None if flag.takes().is_bare() => "true",
            None => rest.next().ok_or_else(|| needs_value(flag))?,
        };
        settings
            .put_text(flag, value, format!("--{name}"))
            .map_err(|problem| misfit(flag, value, &problem))?;
    }
    Ok(())
}

fn named(name: &str) -> Result<&'static Flag, Halt> {
    match table::find(name) {
        Some(flag) => Ok(flag),
        None if name == "h" || name == "help" => Err(Halt::Help),
        None => Err(Halt::Misuse(format!(
            "flag provided but not defined: -{name}\n--help lists the flags there are."
        ))),
    }
}

fn needs_value(flag: &'static Flag) -> Halt {
    let (name, takes) = (flag.name, flag.takes().takes());
    Halt::Misuse(format!("flag needs an argument: -{name}\n--{name} takes {takes}."))
}

fn misfit(flag: &'static Flag, value: &str, problem: &str) -> Halt {
    let (name, takes) = (flag.name, flag.takes().takes());
    let what = if flag.takes().is_bare() {
        format!("invalid boolean value {value:?} for -{name}: {problem}")
    } else {
        format!("invalid value {value:?} for flag -{name}: {problem}")
    };
    Halt::Misuse(format!("{what}\n--{name} takes {takes}."))
}
