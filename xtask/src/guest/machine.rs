//! One boot of the guest.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cases::{Case, Iommu};

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// A boot that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// The words of the one line that starts with `row`.
    pub(super) fn row(&self) -> Result<BTreeMap<&str, &str>> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("row "));
        let words = line.context("the guest reported nothing")?.split_whitespace();
        Ok(words.filter_map(|word| word.split_once('=')).collect())
    }
}

impl Boot<'_> {
    pub(super) fn run(&self) -> Result<Report> {
        let start = Instant::now();
        let mut child = self.command().spawn().context("cannot start QEMU")?;
        let out = child.stdout.take().map(relay);
        let status = wait(&mut child, start + PATIENCE)?;
        let text = out.map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        Ok(Report { status, text, time: start.elapsed() })
    }

    fn command(&self) -> Command {
        let Case { scenario, device, mode, iommu } = self.case;
        let marker: String = self.marker.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut qemu = Command::new(QEMU);
        // Software emulation always: what looks like nested virtualization may not work.
        qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "288"]);
        qemu.args(["-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"]);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(self.kernel);
        qemu.arg("-append").arg(format!(
            "scenario={scenario} device={device} mode={mode} seed={} marker={marker}",
            self.seed
        ));
        match iommu {
            Iommu::None => {}
            Iommu::Intel => _ = qemu.args(["-device", "intel-iommu"]),
            Iommu::Virtio => _ = qemu.args(["-device", "virtio-iommu-pci"]),
        }
        let image = self.image.display();
        let disk = format!("driver=raw,node-name=d0,file.driver=file,file.filename={image}");
        const VIRTIO: &str = "disable-legacy=on,iommu_platform=on";
        match *device {
            "blk" => {
                qemu.args(["-blockdev", &disk]);
                qemu.args(["-device", &format!("virtio-blk-pci,drive=d0,{VIRTIO}")]);
            }
            "nvme" => {
                qemu.args(["-blockdev", &disk]);
                qemu.args(["-device", "nvme,drive=d0,serial=coco"]);
            }
            "rng" => {
                // Randomness from a file: so the bytes are known on the outside.
                qemu.args(["-object", &format!("rng-random,id=r0,filename={image}")]);
                qemu.args(["-device", &format!("virtio-rng-pci,rng=r0,{VIRTIO}")]);
            }
            _ => _ = qemu.args(["-device", "edu"]),
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        qemu
    }
}

fn relay(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, deadline: Instant) -> Result<Option<i32>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the guest did not end within {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
