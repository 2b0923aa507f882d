use std::process::ExitCode;

use clap::Parser;
use tracer::{
    check,
    cli::{Cli, Command},
    emit::schema,
    read, trace,
};

fn main() -> ExitCode {
    let result = match Cli::parse().into_command() {
        Command::Trace(args) => trace::run(&args),
        Command::Record(args) => trace::record(&args),
        Command::Read(args) => read::run(&args),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Schema => {
            print!("{}", schema::SCHEMA);
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("tracer: {error:#}");
        ExitCode::FAILURE
    })
}
