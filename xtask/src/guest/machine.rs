//! One boot of the guest.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cases::{Case, Iommu};
use super::monitor::Monitor;
use crate::shell::{Group, Limit};

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// A boot that takes longer hangs; most take a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is booted, and with what.
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Path,
    pub(super) image: &'a Path,
    pub(super) case: &'a Case,
    pub(super) seed: u64,
    pub(super) marker: [u8; 16],
}

/// What came of it.
pub(super) struct Report {
    pub(super) status: Option<i32>,
    pub(super) text: String,
    pub(super) time: Duration,
}

impl Report {
    /// The words of the last line that starts with `row`.
    pub(super) fn row(&self) -> Result<BTreeMap<&str, &str>> {
        let line = self.text.lines().filter_map(|line| line.strip_prefix("row ")).next_back();
        let words = line.context("the guest reported nothing")?.split_whitespace();
        Ok(words.filter_map(|word| word.split_once('=')).collect())
    }
}

impl Boot<'_> {
    pub(super) fn run(&self, limit: &Limit) -> Result<Report> {
        let start = Instant::now();
        let until = limit.until(Some(PATIENCE));
        let socket = std::env::temp_dir().join(format!("coco-guest-{}", std::process::id()));
        let mut qemu = Group::start(&mut self.command(&socket)).context("cannot start QEMU")?;
        let text = self.attend(&mut qemu.child, until, &socket);
        let status = if text.is_ok() { qemu.wait(until)? } else { None };
        drop(qemu);
        let _ = std::fs::remove_file(&socket);
        let (text, time) = (text?, start.elapsed());
        let status =
            status.with_context(|| format!("QEMU did not end; the guest said:\n{text}"))?;
        Ok(Report { status: status.code(), text, time })
    }

    /// Reads the serial port until it closes, and does what the guest asks for.
    fn attend(&self, child: &mut Child, deadline: Instant, socket: &Path) -> Result<String> {
        let lines = relay(child)?;
        let mut input = child.stdin.take().context("no standard input")?;
        let mut text = String::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.answer(line.trim_end(), &mut input, socket)?;
                    text.push_str(&line);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(text),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest did not end within {PATIENCE:?}; it said:\n{text}")
                }
            }
        }
    }

    fn answer(&self, line: &str, input: &mut ChildStdin, socket: &Path) -> Result<()> {
        match line {
            "ready-to-unplug" => Monitor::open(socket)?.unplug("nvme0"),
            "ready-to-dump" => {
                Monitor::open(socket)?.dump(super::disk::MEMORY, &self.dump())?;
                Ok(input.write_all(b"\n")?)
            }
            _ => Ok(()),
        }
    }

    /// Where the guest's memory is put.
    pub(super) fn dump(&self) -> PathBuf {
        self.image.with_extension("memory")
    }

    fn command(&self, socket: &Path) -> Command {
        let Case { scenario, device, mode, iommu, behind } = self.case;
        let marker: String = self.marker.iter().map(|byte| format!("{byte:02x}")).collect();
        let megabytes = (super::disk::MEMORY >> 20).to_string();
        let mut qemu = Command::new(QEMU);
        // Software emulation always: what looks like nested virtualization may not work.
        qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", &megabytes]);
        qemu.args(["-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(self.kernel);
        qemu.arg("-append").arg(format!(
            "scenario={scenario} device={device} mode={mode} behind={behind} seed={} \
             marker={marker}",
            self.seed
        ));
        match iommu {
            Iommu::None => {}
            Iommu::Intel => _ = qemu.args(["-device", "intel-iommu"]),
            Iommu::Virtio => _ = qemu.args(["-device", "virtio-iommu-pci"]),
        }
        self.plug(&mut qemu);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        qemu
    }

    /// The devices. Each disk has an image of its own, so that both can be there.
    fn plug(&self, qemu: &mut Command) {
        const VIRTIO: &str = "disable-legacy=on,iommu_platform=on";
        let Case { scenario, device, .. } = self.case;
        let has = |name| *device == name || *device == "all";
        if has("blk") {
            self.disk(qemu, "blk0", self.image);
            qemu.args(["-device", &format!("virtio-blk-pci,drive=blk0,{VIRTIO}")]);
        }
        if has("rng") {
            // Randomness from a file: so the bytes are known on the outside.
            let file = format!("rng-random,id=r0,filename={}", self.image.display());
            qemu.args(["-object", &file]);
            qemu.args(["-device", &format!("virtio-rng-pci,rng=r0,{VIRTIO}")]);
        }
        if has("nvme") {
            let second = self.second_image();
            self.disk(qemu, "disk1", if has("blk") { &second } else { self.image });
            let mut bus = "";
            if *scenario == "unplug" {
                // Unplugging by the port's own registers, as on metal, and not by ACPI.
                const ACPI: &str = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off";
                qemu.args(["-global", ACPI, "-device", "pcie-root-port,id=port0,slot=1"]);
                bus = ",bus=port0";
            }
            let nvme = format!("nvme,id=nvme0,drive=disk1,serial=coco{bus}");
            qemu.args(["-device", &nvme]);
        }
        if has("edu") || *scenario == "unplug" {
            qemu.args(["-device", "edu"]);
        }
    }

    /// A disk on an image, made to fail or to be slow where the scenario wants that.
    fn disk(&self, qemu: &mut Command, name: &str, image: &Path) {
        let image = image.display();
        let node = match self.case.scenario {
            // One sector cannot be read.
            "error" => format!(
                "driver=raw,file.driver=blkdebug,file.image.driver=file,\
                 file.image.filename={image},file.inject-error.0.event=none,\
                 file.inject-error.0.iotype=read,file.inject-error.0.errno=5,\
                 file.inject-error.0.sector=1500"
            ),
            // One request a second: the next one stays out.
            "unplug" => {
                qemu.args(["-object", "throttle-group,id=slow,x-iops-total=1"]);
                format!(
                    "driver=throttle,throttle-group=slow,file.driver=raw,file.file.driver=file,\
                     file.file.filename={image}"
                )
            }
            _ => format!("driver=raw,file.driver=file,file.filename={image}"),
        };
        qemu.args(["-blockdev", &format!("{node},node-name={name}")]);
    }

    /// The image of the second disk, where there are two.
    pub(super) fn second_image(&self) -> PathBuf {
        self.image.with_extension("second")
    }
}

/// The lines of the serial port, each with its end.
fn relay(child: &mut Child) -> Result<Receiver<String>> {
    let out = child.stdout.take().context("no standard output")?;
    let (lines, received) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(out);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    Ok(received)
}
