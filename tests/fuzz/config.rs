//! What a person types: flags, variables, the configuration file, addresses.

use super::mutate::{Dice, fuzz};
use ringleader::{
    config::{Outcome, Url, load, table},
    limits::REQUEST_BYTES_CEILING,
};
use std::{ffi::OsString, net::IpAddr, path::Path};

const VALUES: &[&str] = &[
    "true",
    "5",
    "0x10",
    "-1",
    "100ms",
    "1h2m3.5s",
    "default",
    "http://127.0.0.1:2379",
    "http://0.0.0.0:1,http://[::1]:2",
    "unix://a:0",
    "infra0=http://127.0.0.1:2380,infra1=http://10.0.0.2:2380",
    "0-3,8",
    "StopGRPCServiceOnDefrag=true",
    "json",
    "new",
];

/// A value of the kind somebody might type, spoiled now and then.
fn value(dice: &mut Dice) -> String {
    let mut bytes = dice.pick(VALUES).as_bytes().to_vec();
    if dice.once_in(2) {
        dice.spoil(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn flag(dice: &mut Dice) -> &'static table::Flag {
    table::flags().nth(dice.below(table::flags().count())).expect("it is below the count")
}

/// Whatever is typed ends in a member that could run, a page, or a sentence.
fn judge(args: Vec<OsString>, env: Vec<(OsString, OsString)>, file: &str) {
    let host = || Some(IpAddr::from([10, 0, 0, 1]));
    let read = |_: &Path| Ok(file.to_owned());
    match load(args, env, &read, &host) {
        Outcome::Run(config, _) => {
            assert!(!config.listen_client.is_empty() && !config.listen_peer.is_empty());
            assert!(config.heartbeat < config.election);
            // 0 is taken, as by etcd: every request is too large then.
            assert!(config.max_request_bytes <= REQUEST_BYTES_CEILING);
            assert!(config.cores.as_ref().is_none_or(|cores| cores.is_sorted_by(|a, b| a < b)));
        }
        Outcome::Print(text) => assert!(!text.is_empty()),
        Outcome::Fail { message, exit_code } => {
            assert!(!message.is_empty() && (1..=2).contains(&exit_code));
        }
    }
}

#[test]
fn command_lines_and_variables() {
    fuzz("start line", |dice| {
        let mut args: Vec<OsString> = Vec::new();
        for _ in 0..dice.below(4) {
            let mut arg = format!("--{}={}", flag(dice).name, value(dice)).into_bytes();
            if dice.once_in(4) {
                dice.spoil(&mut arg);
            }
            args.push(String::from_utf8_lossy(&arg).into_owned().into());
        }
        let mut env = Vec::new();
        for _ in 0..dice.below(3) {
            env.push((flag(dice).variable().into(), value(dice).into()));
        }
        judge(args, env, "");
    });
}

#[test]
fn files() {
    fuzz("configuration file", |dice| {
        let mut text = String::new();
        for _ in 0..dice.below(5) {
            let quote = dice.pick(&["", "'", "\""]);
            text += &format!("{}: {quote}{}{quote}\n", flag(dice).name, value(dice));
        }
        if dice.once_in(3) {
            text += "client-transport-security:\n  cert-file: 'a'\n  client-cert-auth: true\n";
        }
        let mut bytes = text.into_bytes();
        dice.spoil(&mut bytes);
        judge(vec!["--config-file=c".into()], Vec::new(), &String::from_utf8_lossy(&bytes));
    });
}

#[test]
fn addresses() {
    fuzz("addresses", |dice| {
        let typed = value(dice);
        if let Ok(urls) = Url::parse_list(&typed) {
            for url in urls {
                let again = Url::parse(url.as_str());
                assert_eq!(again.as_ref(), Ok(&url), "an address prints as something it reads");
            }
        }
    });
}
