//! Text in, meaning out.

use super::{table::Disposition, *};

mod anything;
mod command_line;
mod defaults;
mod environment;
mod file;
mod judged;
mod meaning;

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// What a start line, some variables (`KEY=value`) and the file `conf.yaml` come to.
fn start(args: &[&str], env: &[&str], file: &str) -> Outcome {
    let env = env.iter().map(|pair| pair.split_once('=').expect("KEY=value"));
    let read = |path: &Path| match path.to_str() {
        Some("conf.yaml") => Ok(file.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    load(
        args.iter().map(OsString::from),
        env.map(|(key, value)| (key.into(), value.into())),
        &read,
        &|| Some(HOST),
    )
}

fn runs(outcome: Outcome) -> (Config, Vec<Notice>) {
    match outcome {
        Outcome::Run(config, notices) => (*config, notices),
        other => panic!("it should run: {other:?}"),
    }
}

fn fails(outcome: Outcome) -> (String, u8) {
    match outcome {
        Outcome::Fail { message, exit_code } => (message, exit_code),
        other => panic!("it should fail: {other:?}"),
    }
}

fn args(args: &[&str]) -> Config {
    runs(start(args, &[], "")).0
}

fn file(text: &str) -> Config {
    runs(start(&["--config-file=conf.yaml"], &[], text)).0
}

fn bad_args(args: &[&str]) -> (String, u8) {
    fails(start(args, &[], ""))
}

fn bad_file(text: &str) -> String {
    let (message, code) = fails(start(&["--config-file=conf.yaml"], &[], text));
    assert_eq!(code, 1, "{message}");
    message
}

fn says(notices: &[Notice], message: &str, value: &str) -> bool {
    let has = |notice: &Notice| notice.fields.iter().any(|(_, field)| field == value);
    notices.iter().any(|notice| notice.message == message && (value.is_empty() || has(notice)))
}
