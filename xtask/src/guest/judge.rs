//! Whether a boot showed what it had to show. The guest's word counts for what only it can know;
//! bytes are compared with the host's file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::cases::{Case, Iommu};
use super::disk;
use super::machine::{Boot, Report};

pub(super) const HEADER: &str = "scenario device mode      iommu            bytes direct bounced \
                                 convert faults  boot-to-exit  verified from outside";

/// QEMU's status where the guest says that all held.
const HELD: i32 = 33;

/// The line of the table, or what did not hold.
pub(super) fn judge(case: &Case, boot: &Boot<'_>, report: &Report) -> Result<String> {
    let row = report.row()?;
    ensure!(report.status == Some(HELD), "QEMU's status is {:?}, not {HELD}", report.status);
    let image = std::fs::read(boot.image)?;
    let seen = Seen { case, boot, row: &row, image: &image };
    ensure!(seen.text("iommu")? == case.iommu.name(), "the guest saw {}", seen.text("iommu")?);
    ensure!(seen.number("live")? == 0, "{} maps never ended", seen.number("live")?);
    let verified = match case.mode {
        "attack" => seen.attack()?,
        _ => seen.transfer()?,
    };
    let show = |key| row.get(key).copied().unwrap_or("-");
    Ok(format!(
        "{:<8} {:<6} {:<9} {:<13} {:>8} {:>6} {:>7} {:>7} {:>6} {:>10.2} s  {verified}",
        case.scenario,
        case.device,
        case.mode,
        case.iommu.name(),
        show("bytes"),
        show("direct"),
        show("bounced"),
        show("conversions"),
        show("faults"),
        report.time.as_secs_f64(),
    ))
}

/// What is known of one boot.
struct Seen<'a> {
    case: &'a Case,
    boot: &'a Boot<'a>,
    row: &'a BTreeMap<&'a str, &'a str>,
    image: &'a [u8],
}

impl Seen<'_> {
    fn text(&self, key: &str) -> Result<&str> {
        self.row.get(key).copied().with_context(|| format!("the guest did not say `{key}`"))
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.text(key)?.parse().with_context(|| format!("`{key}` is no number"))
    }

    fn part(&self, from: usize, len: usize) -> Result<&[u8]> {
        self.image.get(from..from + len).context("the image became shorter")
    }

    fn is_disk(&self) -> bool {
        ["blk", "nvme"].contains(&self.case.device)
    }

    /// How often the private marker stands in the image.
    fn leaked(&self) -> usize {
        disk::count(self.image, &self.boot.marker)
    }

    /// Bytes went both ways and are the same on both sides; nothing else did.
    fn transfer(&self) -> Result<String> {
        let pattern = |len| disk::pattern(self.boot.seed, len);
        let (expected, how) = match self.case.device {
            "rng" => (disk::sha256(self.part(0, disk::ENTROPY)?), "read = file"),
            "edu" => (disk::sha256(&pattern(2048)), "echo = pattern"),
            _ => (disk::sha256(self.part(0, disk::PART)?), "read = file, file = written"),
        };
        let read = self.text("read")?;
        ensure!(read == expected, "the guest read {read}, the host has {expected}");
        if self.is_disk() {
            let (there, given) = (
                disk::sha256(self.part(disk::PART, disk::PART)?),
                disk::sha256(&pattern(disk::PART)),
            );
            ensure!(there == given, "the guest wrote {given}, the host has {there}");
        }
        ensure!(self.leaked() == 0, "{} private markers are in the image", self.leaked());
        ensure!(self.number("faults")? == 0, "an IOMMU fault without an attack");
        match self.case.mode {
            "direct" if self.case.device == "edu" => {}
            "direct" => ensure!(self.number("direct")? > 0, "nothing was mapped in place"),
            _ => ensure!(self.number("bounced")? > 0, "nothing was bounced"),
        }
        let first: String = read.chars().take(8).collect();
        Ok(format!("{how} ({first}), no marker"))
    }

    /// The control lost its page, and nobody else did.
    fn attack(&self) -> Result<String> {
        let control = self.case.iommu == Iommu::None;
        let private = self.text("private")?;
        for said in ["steal-said", "write-said"] {
            ensure!(self.text(said)? == "ok", "the device said {said}={}", self.text(said)?);
        }
        let mut stolen = self.row.get("stolen").is_some_and(|stolen| *stolen == "true");
        if self.is_disk() {
            // A page of markers arrives as a whole, or as zeroes.
            let loot = self.part(disk::LOOT, 4096)?;
            stolen = loot.chunks(16).all(|chunk| chunk == self.boot.marker);
            ensure!(stolen || loot.iter().all(|byte| *byte == 0), "half a page was stolen");
            ensure!(self.leaked() == if stolen { 256 } else { 0 }, "markers elsewhere");
        }
        let faults = self.number("faults")?;
        if control {
            ensure!(private == "overwritten", "without an IOMMU the attack has to work");
            ensure!(stolen || self.case.device == "rng", "without an IOMMU the theft has to work");
            ensure!(faults == 0, "a fault without an IOMMU");
            Ok("page overwritten, as a control must be".to_owned())
        } else {
            ensure!(private == "intact", "the private page is {private}");
            ensure!(!stolen, "the private page was read");
            ensure!(faults > 0, "no fault was recorded");
            Ok("page intact, device said ok".to_owned())
        }
    }
}
