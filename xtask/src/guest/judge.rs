//! Whether a boot showed what it had to show. The guest's word counts for what only it can know;
//! bytes are compared with the host's file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::cases::{Case, Iommu};
use super::disk;
use super::leak;
use super::machine::{Boot, Report};

pub(super) const HEADER: &str = "scenario device mode          iommu        behind         bytes \
                                 direct bounced convert faults    time  verified from outside";

/// QEMU's status where the guest says that all held.
const HELD: i32 = 33;
/// QEMU's status after a page fault.
const PAGE_FAULT: i32 = 39;

/// The line of the table, or what did not hold.
pub(super) fn judge(case: &Case, boot: &Boot<'_>, report: &Report) -> Result<String> {
    if case.scenario == "touch" {
        let verified = touched(case, report)?;
        return Ok(line(case, report, &BTreeMap::new(), &verified));
    }
    let row = report.row()?;
    ensure!(report.status == Some(HELD), "QEMU's status is {:?}, not {HELD}", report.status);
    let image = std::fs::read(boot.image)?;
    let seen = Seen { case, boot, row: &row, image: &image };
    seen.is("iommu", case.iommu.name())?;
    seen.is("live", "0")?;
    if case.behind != "passthrough" {
        seen.is("behind", "translated")?;
        seen.is("mapped", "0")?;
        seen.is("lost", "0")?;
    }
    let verified = match (case.scenario, case.mode) {
        ("io", "attack") => seen.attack()?,
        ("io", _) => seen.transfer()?,
        ("leak", _) => leak::judge(boot, report)?,
        ("wide", _) => seen.wide()?,
        ("exhaust", _) => {
            seen.all(&[("reason", "pool-full"), ("refused-io", "true"), ("then", "ok")])?;
            format!("pool-full after {} maps, then ok", seen.text("maps")?)
        }
        ("error", _) => {
            seen.all(&[("bad", "error"), ("then", "ok")])?;
            "the disk's error came through, then ok".to_owned()
        }
        ("unplug", _) => {
            seen.all(&[("waited", "gone"), ("buffer", "untouched")])?;
            seen.all(&[("refused-io", "revoked"), ("then", "ok")])?;
            format!("gone, {} slots freed, buffer untouched, edu goes on", seen.text("freed")?)
        }
        ("refuse", mode) => seen.refused(mode)?,
        (scenario, _) => bail!("nobody judges `{scenario}`"),
    };
    Ok(line(case, report, &row, &verified))
}

fn line(case: &Case, report: &Report, row: &BTreeMap<&str, &str>, verified: &str) -> String {
    let show = |key| row.get(key).copied().unwrap_or("-");
    format!(
        "{:<8} {:<6} {:<13} {:<12} {:<11} {:>8} {:>6} {:>7} {:>7} {:>6} {:>5.2} s  {verified}",
        case.scenario,
        case.device,
        case.mode,
        case.iommu.name(),
        case.behind,
        show("bytes"),
        show("direct"),
        show("bounced"),
        show("conversions"),
        show("faults"),
        report.time.as_secs_f64(),
    )
}

/// The guest faulted where it said that it would touch.
fn touched(case: &Case, report: &Report) -> Result<String> {
    let said = |start: &str| report.text.lines().find_map(|line| line.trim().strip_prefix(start));
    let status = report.status;
    ensure!(status == Some(PAGE_FAULT), "QEMU's status is {status:?}, not {PAGE_FAULT}");
    let wanted = said("touching ").context("the guest touched nothing")?;
    let trap = said("trap ").context("no exception was told")?;
    ensure!(trap.ends_with(&format!("address={wanted}")), "it faulted elsewhere: {trap}");
    Ok(format!("page fault at the {} {wanted}, as it must be", case.mode))
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

    fn is(&self, key: &str, wanted: &str) -> Result<()> {
        let text = self.text(key)?;
        ensure!(text == wanted, "the guest said {key}={text}, not {wanted}");
        Ok(())
    }

    fn all(&self, wanted: &[(&str, &str)]) -> Result<()> {
        wanted.iter().try_for_each(|(key, wanted)| self.is(key, wanted))
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
            "private" => {
                // Private memory of an accepted device, by its entry: nothing is copied.
                ensure!(self.number("direct")? > 0, "nothing was mapped in place");
                self.is("bounced", "0")?;
            }
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

    /// edu got its bytes, and not by the address that it would have cut off.
    fn wide(&self) -> Result<String> {
        self.all(&[("echo", "true"), ("spared", "true"), ("misled-said", "ok")])?;
        if self.case.behind == "translated" {
            // A domain gives it an address that it can take, so that nothing is copied.
            self.all(&[("through-pool", "false"), ("misled-hit", "false")])?;
            ensure!(self.number("faults")? > 0, "no fault was recorded");
            return Ok("in place by the domain; past it: a fault".to_owned());
        }
        self.all(&[("through-pool", "true"), ("reason", "beyond-mask"), ("misled-hit", "true")])?;
        Ok("bounced beyond-mask; past the layer: another page hit".to_owned())
    }

    /// The conversion was undone as a whole, and worked later.
    fn refused(&self, mode: &str) -> Result<String> {
        let code = match (mode, self.case.iommu) {
            ("no-table", _) => "0x101",
            (_, Iommu::Intel) => "0x103",
            // VIRTIO_IOMMU_S_INVAL.
            _ => "0x4",
        };
        self.all(&[("code", code), ("done", "4096"), ("unchanged", "8192")])?;
        self.all(&[("quarantined", "0"), ("private", "true"), ("then", "ok")])?;
        Ok(format!("refused with {code}, undone, then ok"))
    }
}
