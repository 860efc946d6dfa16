//! The workshop: `cargo xtask test` is the one command that says whether a change may land.
//!
//! | module | what |
//! |---|---|
//! | `steps` | the steps of `test` and `deep`, their order and their bookkeeping |
//! | `packages` | programs that the tests need, and how to get them |
//! | `floors` | who may import whom: the table (data) and its check |
//! | `checks` | the other house rules that a machine can hold: `unsafe`, file sizes, the open path |
//! | `guest` | boots the bare-metal guest before QEMU's devices and IOMMUs |
//! | `sabotage` | makes the layer wrong on purpose, and sees who notices |
//! | `source`, `shell` | reading Rust files as tokens; running commands |

mod checks;
mod floors;
mod guest;
mod omissions;
mod packages;
mod sabotage;
mod shell;
mod source;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use shell::Workshop;
use steps::Options;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workshop of coco-dma")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every check that a change has to pass: under 15 minutes from nothing on two cores
    Test(Options),
    /// Slower checks: many property cases, a wider loom bound, sanitizers, mutants
    Deep(Options),
    /// Who imports whom inside the core, and which crate depends on which
    Floors,
    /// Every file with `unsafe` opens with why
    Unsafe,
    /// File sizes, and what the core's lib.rs may hold
    Files,
    /// Count the instructions of a map on an open machine
    OpenPath,
    /// Count the instructions of a map and its finish, beside the reference's
    Instructions,
    /// Boot the bare-metal guest: every device, every IOMMU, every way, and the attacks
    Guest,
    /// Make the layer wrong on purpose, one thing at a time: do the cases that should see it?
    Sabotage(sabotage::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let mut shop = Workshop::open()?;
    match command {
        Command::Test(options) => steps::run(&mut shop, "test", steps::TEST, &options),
        Command::Deep(options) => steps::run(&mut shop, "deep", steps::DEEP, &options),
        Command::Floors => steps::one(&mut shop, "floors"),
        Command::Unsafe => steps::one(&mut shop, "unsafe"),
        Command::Files => steps::one(&mut shop, "files"),
        Command::OpenPath => steps::one(&mut shop, "open-path"),
        Command::Instructions => steps::one(&mut shop, "instructions"),
        Command::Guest => {
            packages::install(&mut shop)?;
            steps::one(&mut shop, "guest")?;
            shop.omitted.print();
            Ok(())
        }
        Command::Sabotage(options) => {
            steps::begin_deep(&mut shop, "sabotage")?;
            sabotage::command(&shop, &options)
        }
    }
}
