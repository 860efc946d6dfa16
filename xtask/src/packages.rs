//! Programs that the tests start, and the Debian packages that hold them.

use std::process::Command;

use anyhow::Result;

use crate::shell::{Workshop, which};

struct Needed {
    program: &'static str,
    packages: &'static [&'static str],
    without_it: &'static str,
}

const NEEDED: &[Needed] = &[
    Needed {
        program: "qemu-storage-daemon",
        // Debian 12 ships it in the second; later releases in the first.
        packages: &["qemu-utils", "qemu-system-common"],
        without_it: "every check against qemu-storage-daemon, a device that is not ours",
    },
    Needed {
        program: "qemu-img",
        packages: &["qemu-utils"],
        without_it: "checks on images that qemu-img makes",
    },
    Needed {
        program: "qemu-system-x86_64",
        // The firmware is only recommended by the emulator's package.
        packages: &["qemu-system-x86", "seabios"],
        without_it: "the bare-metal guest, with it every check behind an IOMMU",
    },
    Needed {
        program: "valgrind",
        packages: &["valgrind"],
        without_it: "the instructions of a map, beside the reference's",
    },
    Needed {
        program: "mkfs.ext4",
        packages: &["e2fsprogs"],
        without_it: "checks on a real ext4 image",
    },
    Needed {
        program: "setpriv",
        packages: &["util-linux"],
        without_it: "checks that run as another user",
    },
];

/// Installs what is missing when we are root; otherwise, and where that fails, says what is
/// missing, how to get it, and what is left out without it.
pub(crate) fn install(shop: &mut Workshop) -> Result<()> {
    let mut packages: Vec<&str> = missing().flat_map(|needed| needed.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    println!("== packages: missing here: {list}");
    if which("apt-get").is_none() {
        println!("   this machine has no apt-get: install them the way it does");
    } else if !is_root(shop)? {
        println!("   not root, so nothing is installed. To have every check, run:");
        println!("       sudo apt-get install --no-install-recommends {list}");
    } else {
        apt(shop, &packages);
    }
    for needed in missing() {
        let Needed { program, packages, without_it } = needed;
        shop.omitted.add(format!("{program} ({}): {without_it}", packages.join(", ")));
    }
    Ok(())
}

fn missing() -> impl Iterator<Item = &'static Needed> {
    NEEDED.iter().filter(|needed| which(needed.program).is_none())
}

fn is_root(shop: &Workshop) -> Result<bool> {
    Ok(shop.output(shop.program("id").arg("-u"))?.trim() == "0")
}

/// A failure of apt is told and outlived: what is still missing afterwards is left out.
fn apt(shop: &Workshop, packages: &[&str]) {
    if let Err(error) = shop.run(apt_get(shop).arg("update")) {
        println!("   {error:#}; trying with the package lists that are here");
    }
    let mut install = apt_get(shop);
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    if let Err(error) = shop.run(&mut install) {
        println!("   {error:#}; going on without");
    }
}

fn apt_get(shop: &Workshop) -> Command {
    let mut command = shop.program("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    command
}
