//! A machine with images and a device process, for one test.
// UNSAFETY: `virtio-drivers` finds its memory through a type, not a value; see `bind`.
#![expect(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::regime::{Parameters, PlatformName, Regime};
use coco_dma_vhost::copy::{CopyError, CopyJob, CopyReport, PATIENCE, Progress, Shape, copy};
use coco_dma_vhost::device::{Backing, DeviceProcess, Export, Keeper, Kind, Launch};
use coco_dma_vhost::disk::{Disk, Done, Footing, Request, Submitted, wait};
use coco_dma_vhost::machine::{Layer, Storage, UserMachine};
use coco_dma_vhost::memory::PrivateArena;
use coco_dma_virtio::{Adaptor, Record};

pub(crate) const POOL: usize = 4 << 20;

pub(crate) fn regime(platform: PlatformName) -> Regime {
    platform.regime(&Parameters::default()).unwrap()
}

/// Bytes that are different in every sector, and not at all at their ends.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Files for two disks and a scratch disk.
pub(crate) struct Images {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) bytes: Vec<u8>,
}

impl Images {
    pub(crate) fn new(len: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = content(len);
        std::fs::write(dir.path().join("in"), &bytes).unwrap();
        for name in ["out", "scratch"] {
            let len = if name == "out" { len } else { 1 << 20 };
            File::create(dir.path().join(name)).unwrap().set_len(len as u64).unwrap();
        }
        Self { dir, bytes }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn output(&self) -> Vec<u8> {
        std::fs::read(self.path("out")).unwrap()
    }

    pub(crate) fn export(&self, name: &str) -> Export {
        Export { backing: Backing::File(self.path(name)), writable: name != "in" }
    }

    pub(crate) fn launch(&self, kind: Kind) -> Launch {
        launch(kind, vec![self.export("in"), self.export("out"), self.export("scratch")])
    }
}

pub(crate) fn launch(kind: Kind, exports: Vec<Export>) -> Launch {
    Launch { kind, exports, embedded_program: None }
}

/// Runs `test` on a machine of that platform and pool.
pub(crate) fn on<R>(platform: PlatformName, pool: usize, test: impl FnOnce(&Layer<'_>) -> R) -> R {
    let arena = PrivateArena::new(4 << 20).unwrap();
    let machine = UserMachine::new(regime(platform), arena, pool).unwrap();
    let storage = Storage::of(&machine);
    let metadata = storage.metadata(&machine).unwrap();
    test(&Layer::new(&machine, &metadata))
}

/// The same on a machine with `count` regions of `size` bytes, the first of them in pools of as
/// many as `growth` says.
pub(crate) fn on_regions<R>(
    pool: usize,
    (count, size): (usize, usize),
    growth: &[usize],
    test: impl FnOnce(&Layer<'_>) -> R,
) -> R {
    let arena = PrivateArena::new(4 << 20).unwrap();
    // The platform whose shared addresses carry a mark.
    let machine = UserMachine::new(regime(PlatformName::Cca), arena, pool).unwrap();
    let machine = machine.with_regions(count, size).unwrap();
    let storage = Storage::growing(&machine, growth).unwrap();
    let metadata = storage.metadata(&machine).unwrap();
    test(&Layer::new(&machine, &metadata))
}

coco_dma_virtio::hal! {
    pub(crate) struct TestHal;
}

pub(crate) type TestDisk<'a, 'p> = Disk<'a, 'p, TestHal>;

/// Runs `test` with a disk on an export of a process, for up to 8 requests in flight.
pub(crate) fn with_disk<'a, R>(
    layer: &Layer<'a>,
    process: &DeviceProcess,
    export: usize,
    test: impl for<'p> FnOnce(TestDisk<'a, 'p>, &Adaptor<'p>) -> R,
) -> R {
    let records: Vec<Record> = (0..64).map(|_| Record::new()).collect();
    let device = layer.dma().bind(Endpoint::new("test disk"), Limits::NONE).unwrap();
    let adaptor = &Adaptor::new(device, &records);
    // SAFETY: the disk is declared after the guard, and the guard after the adaptor.
    let bound = &unsafe { TestHal::bind(&adaptor) }.unwrap();
    let on =
        Footing { name: "test disk", machine: layer.machine(), adaptor, bound, process, export };
    test(Disk::open(on, 8).unwrap(), adaptor)
}

/// Submits a read of `len` bytes from sector 3 on.
pub(crate) fn submit<'a>(
    layer: &Layer<'a>,
    disk: &mut TestDisk<'a, '_>,
    len: usize,
) -> Submitted<'a> {
    let buffer = layer.machine().arena().take(len).unwrap();
    disk.submit(Request::read(3, buffer, len)).unwrap()
}

/// Waits for the next request that is done.
pub(crate) fn next<'a>(disk: &mut TestDisk<'a, '_>) -> Done<'a> {
    loop {
        if let Some(done) = disk.next_done().unwrap() {
            return done;
        }
        wait(&mut [&mut *disk], SOON).unwrap();
    }
}

/// How many lines of a process's mappings name this memory file.
pub(crate) fn mapped(process: &DeviceProcess, name: &str) -> usize {
    let lines = process.mappings().unwrap();
    lines.iter().filter(|line| line.contains(&format!("memfd:{name}"))).count()
}

pub(crate) fn job(bytes: usize, depth: usize) -> CopyJob {
    let shape = Shape { depth, request: 65536 };
    CopyJob { input: 0, output: 1, bytes: bytes as u64, shape, patience: PATIENCE }
}

pub(crate) fn run(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CopyJob,
) -> Result<CopyReport, CopyError> {
    let mut last = 0;
    let report = copy(layer, keeper, job, &mut |Progress { written, bytes }| {
        assert!(written > last && written <= bytes && bytes == job.bytes);
        last = written;
    });
    if report.is_ok() {
        assert_eq!(last, job.bytes);
    }
    report
}

/// Sooner than anybody who waits for a device of whom nothing else is said: that takes [`PATIENCE`].
pub(crate) const SOON: Duration = Duration::from_secs(25);
