//! The command `coco-dma`: runs, explains and checks DMA mappings of confidential guests.

mod args;
mod bench;
mod check;
mod explain;
mod failure;
mod number;
mod output;
mod platforms;
mod run;
mod trace;
mod usage;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::args::Command;

fn main() -> ExitCode {
    // The embedded device is this same program, executed again with nothing but descriptors.
    if let Some(code) = run::embedded_device() {
        return code;
    }
    let outcome = match Cli::try_parse() {
        Ok(cli) => dispatch(&cli.command),
        Err(error) if error.use_stderr() => Err(usage::sentence(&error)),
        Err(help) => {
            // Help and version: a closed pipe is the reader's business.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            failure.code()
        }
    }
}

fn dispatch(command: &Command) -> Result<(), failure::Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Explain(args) => explain::explain(args),
        Command::Platforms(args) => platforms::platforms(args),
        Command::Check(args) => check::check(args),
        Command::Bench(args) => bench::bench(args),
    }
}
