//! What a device refuses: one line, a hang-up, and the next connection works.

use coco_dma_vhost::device::{Backing, Export, Kind};
use std::fs;

use crate::front::{DATA, Front, INDIRECT, NEXT, Outcome, PATIENCE, POOL, SIZE, WRITE};
use crate::{OK, connect, image, null, start};

pub(crate) fn refuses_bad_descriptors(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let bytes = image(&path, 64);
    let device = start(kind, vec![Export { backing: Backing::File(path.clone()), writable: true }]);
    let private = vec![0x5A_u8; 8192];
    let heap = private.as_ptr() as u64;
    let cases: &[(&str, u32, u64, u32)] = &[
        ("read into private memory", 0, heap, 512),
        ("write from private memory", 1, heap, 512),
        ("past the pool", 0, POOL + SIZE, 512),
        ("below the pool", 0, POOL - 4096, 512),
        ("across its end", 0, POOL + SIZE - 256, 512),
        ("across its beginning", 1, POOL - 256, 512),
        ("wrapping", 0, u64::MAX - 255, 512),
        ("up to where it would wrap", 0, u64::MAX - 511, 512),
        ("at zero", 0, 0, 512),
        ("of length zero", 0, POOL + DATA, 0),
        ("all there is", 1, POOL, 0xFFFF_0000),
    ];
    for (case, request, address, len) in cases {
        let mut front = connect(&device, 0, true);
        front.put(DATA, &[0xC3; 512]);
        assert_eq!(front.request(*request, 1, *address, *len), Outcome::HungUp, "{case}");
        let lines = device.last_words();
        let line = lines.last().unwrap_or_else(|| panic!("{case}: not a word"));
        if kind == Kind::Embedded {
            assert!(line.contains(&format!("{address:#x} + {len:#x}")), "{case}: {line}");
        }
        assert_eq!(line.contains("zero sized"), *len == 0, "{case}: {line}");
        drop(front);
        let mut front = connect(&device, 0, true);
        assert_eq!(front.read(3, 512), Outcome::Done { status: OK, len: 513 }, "{case}");
        assert_eq!(front.get(DATA, 512), bytes[3 * 512..][..512], "{case}");
    }
    assert!(private.iter().all(|&byte| byte == 0x5A), "private bytes were touched");
    assert_eq!(fs::read(&path).unwrap(), bytes, "private bytes reached the disk");
    assert_eq!(device.poll_exit(), None);
}

/// Rings and chains that make no sense, beyond addresses.
pub(crate) fn refuses_bad_rings(kind: Kind) {
    let device = null(kind);
    let attack = |name: &str, word: &str, act: &dyn Fn(&mut Front) -> Outcome| {
        let mut front = connect(&device, 0, true);
        front.header(0, 0);
        assert_eq!(act(&mut front), Outcome::HungUp, "{name}");
        let line = device.last_words().pop().unwrap();
        assert!(line.contains(word), "{name}: {line}");
    };
    let header = POOL + 0x3000;
    let status = POOL + 0x3100;
    attack("a loop", "circle", &|front| {
        front.describe(0, 0, header, 16, NEXT, 1);
        front.describe(0, 1, POOL + DATA, 512, NEXT | WRITE, 1);
        front.submit(0)
    });
    attack("readable after writable", "to be read", &|front| {
        front.describe(0, 0, status, 1, NEXT | WRITE, 1);
        front.describe(0, 1, header, 16, 0, 0);
        front.submit(0)
    });
    attack("next out of the table", "leads out", &|front| {
        front.describe(0, 0, header, 16, NEXT, 16);
        front.submit(0)
    });
    attack("no status", "no room", &|front| {
        front.describe(0, 0, header, 16, 0, 0);
        front.submit(0)
    });
    attack("head out of the table", "leads out", &|front| front.submit(0xFFFF));
    attack("half a header", "no room", &|front| {
        front.describe(0, 0, header, 15, NEXT, 1);
        front.describe(0, 1, status, 1, WRITE, 0);
        front.submit(0)
    });
    attack("an indirect table elsewhere", "its table", &|front| {
        front.describe(0, 0, POOL + SIZE, 48, INDIRECT, 0);
        front.submit(0)
    });
    attack("more requests than the ring holds", "the ring", &|front| {
        front.offer_up_to(17);
        front.outcome(PATIENCE)
    });
    attack("an indirect table in an indirect table", "its table", &|front| {
        front.describe(0x3400, 0, POOL + 0x3400, 48, INDIRECT, 0);
        front.describe(0, 0, POOL + 0x3400, 48, INDIRECT, 0);
        front.submit(0)
    });
    attack("more than 4 GiB", "4 GiB", &|front| {
        front.describe(0, 0, header, 16, NEXT, 1);
        front.describe(0, 1, POOL + DATA, u32::MAX, WRITE, 0);
        front.submit(0)
    });
    attack("nothing", "zero sized", &|front| {
        front.describe(0, 0, 0, 0, 0, 0);
        front.submit(0)
    });
    attack("an empty indirect table", "its table", &|front| {
        front.describe(0, 0, POOL + 0x3400, 0, INDIRECT, 0);
        front.submit(0)
    });
    let mut front = connect(&device, 0, true);
    assert_eq!(front.read(0, 4096), Outcome::Done { status: OK, len: 4097 });
    assert_eq!(device.poll_exit(), None);
}
