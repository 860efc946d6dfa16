//! A machine with images and a device process, for one test.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use coco_dma::regime::{Parameters, PlatformName, Regime};
use coco_dma_vhost::copy::{CopyError, CopyJob, CopyReport, PATIENCE, Progress, Shape, copy};
use coco_dma_vhost::device::{Backing, Export, Keeper, Kind, Launch};
use coco_dma_vhost::machine::{Layer, Storage, UserMachine};
use coco_dma_vhost::memory::PrivateArena;

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
    let books = storage.books(&machine).unwrap();
    test(&Layer::new(&machine, &books))
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

pub(crate) const SOON: Duration = Duration::from_secs(5);
