//! The entry: read what was typed, run, inspect or restore, and say how it ended.

use ringleader::{config, inspect, restore, runtime};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == inspect::COMMAND).is_some() {
        return ExitCode::from(inspect::run(args) as u8);
    }
    if args.next_if(|arg| arg == restore::COMMAND).is_some() {
        return ExitCode::from(restore::run(args) as u8);
    }
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    match config::load(args, std::env::vars_os(), &read, &config::default_host) {
        config::Outcome::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        config::Outcome::Fail { message, exit_code } => {
            eprintln!("{message}");
            ExitCode::from(exit_code)
        }
        config::Outcome::Run(config, notices) => match runtime::run(*config, &notices) {
            Ok(signal) => {
                if let Some(signal) = signal {
                    runtime::end_by(signal);
                }
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("ringleader: {why}");
                ExitCode::FAILURE
            }
        },
    }
}
