//! `cargo xtask guest`: the bare-metal guest before QEMU's devices and IOMMUs, in every
//! combination, judged from outside.
//!
//! | module | what |
//! |---|---|
//! | `cases` | the combinations, as data |
//! | `machine` | one boot: QEMU's command line, the serial port, the exit status |
//! | `monitor` | what the host does meanwhile: unplug a device, dump memory |
//! | `disk` | the image on the host, and what is looked for in it |
//! | `judge`, `leak` | whether a boot showed what it had to show; what left the guest |

mod cases;
mod disk;
mod judge;
mod leak;
mod machine;
mod monitor;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{Workshop, which};
use cases::Case;
use machine::Boot;

/// The step `guest`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))) {
        shop.omitted.add("guest: it is built with the target x86_64-unknown-linux-gnu".to_owned());
        return Ok(());
    }
    let kernel = build(shop)?;
    if which(machine::QEMU).is_none() {
        shop.omitted.add(format!("guest: {} is not installed", machine::QEMU));
        return Ok(());
    }
    let folder = shop.target.join("guest/runs");
    std::fs::create_dir_all(&folder)?;
    let start = Instant::now();
    println!("   {}", judge::HEADER);
    let (mut wrong, mut boots) = (Vec::new(), 0);
    for (number, case) in cases::all().into_iter().enumerate() {
        boots += 1;
        match run(shop, &folder, &kernel, number, &case) {
            Ok(line) => println!("   {line}"),
            Err(error) => {
                println!("   {} FAILED: {error:#}", case.name());
                wrong.push(case.name());
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{} of {boots} boots did not show what they had to: {}",
            wrong.len(),
            wrong.join("; ")
        );
    }
    println!("   {boots} boots in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Builds the kernel. Its own folder's configuration says how.
fn build(shop: &Workshop) -> Result<PathBuf> {
    let target = shop.target.join("guest");
    let mut build = shop.cargo("build --release --locked");
    build.current_dir(shop.root.join("guest")).env("CARGO_TARGET_DIR", &target);
    shop.run(&mut build)?;
    Ok(target.join("x86_64-unknown-linux-gnu/release/guest"))
}

fn run(
    shop: &Workshop,
    folder: &Path,
    kernel: &Path,
    number: usize,
    case: &Case,
) -> Result<String> {
    let seed = 2 * number as u64 + 1;
    let image = folder.join(format!("{number:02}.img"));
    let boot = Boot { kernel, image: &image, case, seed, marker: disk::marker(seed) };
    disk::make(&image, seed)?;
    disk::make(&boot.second_image(), seed)?;
    let report = boot.run(&shop.limit)?;
    let verdict = judge::judge(case, &boot, &report)
        .with_context(|| format!("it said:\n{}", report.text.trim_end()))?;
    // What was wrong stays for whoever looks for the reason.
    for file in [image.clone(), boot.second_image(), boot.dump()] {
        let _ = std::fs::remove_file(file);
    }
    Ok(verdict)
}
