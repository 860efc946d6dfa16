//! The crates on other machines' bare targets: built, not run. The toolchain that everybody has
//! brings no `core` for them, so Debian's compiler and its sources are unpacked beside the target
//! folder (nothing is installed), and `core` is built as well.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{Workshop, which};

/// The last has no 64-bit atomics: the core uses `AtomicUsize` and `AtomicPtr` alone.
const TARGETS: [&str; 4] = [
    "x86_64-unknown-none",
    "aarch64-unknown-none",
    "riscv64imac-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
];
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"];

/// The step `bare`.
pub(super) fn run(shop: &mut Workshop) -> Result<()> {
    let root = match compiler(shop) {
        Ok(root) => root,
        Err(error) => {
            shop.omitted.add(format!("bare: no sources of `core` for bare targets: {error:#}"));
            return Ok(());
        }
    };
    for target in TARGETS {
        for package in ["coco-dma", "coco-dma-virtio"] {
            let mut build = shop.cargo("build -Zbuild-std=core --no-default-features --locked");
            build.args(["--package", package, "--target", target]);
            build.env("RUSTC", root.join("usr/bin/rustc")).env("RUSTC_BOOTSTRAP", "1");
            build.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
            build.env("CARGO_TARGET_DIR", shop.target.join("bare/target"));
            shop.run(&mut build).with_context(|| format!("{package} for {target}"))?;
        }
    }
    Ok(())
}

/// Debian's compiler with its sources, unpacked.
fn compiler(shop: &Workshop) -> Result<PathBuf> {
    let root = shop.target.join("bare/compiler");
    if root.join("complete").is_file() {
        return Ok(root);
    }
    for program in ["apt-get", "apt-cache", "dpkg"] {
        which(program).with_context(|| format!("there is no {program} here"))?;
    }
    let folder = shop.target.join("bare/packages");
    std::fs::create_dir_all(&folder)?;
    let depends = |package: &str| -> Result<String> {
        shop.output(shop.program("apt-cache").args(["depends", package]))
    };
    // The packages that go by a version number.
    let std = named(&depends("libstd-rust-web-dev")?, "libstd-rust-web-");
    let std = std.context("apt knows no libstd-rust-web")?;
    let llvm = named(&depends(&std)?, "libllvm").context("apt knows no libllvm for it")?;
    let mut download = shop.program("apt-get");
    download.args(["-qq", "download"]).args(PACKAGES).args([&std, &llvm]).current_dir(&folder);
    shop.run(&mut download)?;
    for package in std::fs::read_dir(&folder)? {
        let mut unpack = shop.program("dpkg");
        shop.run(unpack.arg("-x").arg(package?.path()).arg(&root))?;
    }
    std::fs::remove_dir_all(&folder)?;
    mark_complete(&root)?;
    Ok(root)
}

/// The first package in apt's list whose name starts so and goes on with a digit.
fn named(list: &str, start: &str) -> Option<String> {
    let name = |line: &str| Some(line.trim().strip_prefix("Depends: ")?.to_owned());
    let numbered = |name: &String| {
        name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    list.lines().filter_map(name).find(numbered)
}

fn mark_complete(root: &Path) -> Result<()> {
    Ok(std::fs::write(root.join("complete"), "")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_with_a_number_is_found() {
        let list = "libstd-rust-web-dev\n  Depends: libstd-rust-web-x\n  \
                    Depends: libstd-rust-web-1.96\n  Recommends: libstd-rust-web-2\n";
        assert_eq!(named(list, "libstd-rust-web-").as_deref(), Some("libstd-rust-web-1.96"));
        assert_eq!(named(list, "libllvm"), None);
    }
}
