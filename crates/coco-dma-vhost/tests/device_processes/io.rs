//! Requests that a device serves, and those it answers with an error.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use coco_dma_vhost::device::{Backing, DeviceError, Export, Kind};

use crate::front::{DATA, Front, INDIRECT, NEXT, Outcome, POOL, WRITE};
use crate::{IOERR, OK, UNSUPP, connect, image, null, start};

pub(crate) fn reads_and_writes(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    // Names that would be taken apart on a command line.
    let input = dir.path().join("a,b = c,,'\"{} \u{e9}.img");
    let output = dir.path().join("file=x,node-name=disk0.img");
    let bytes = image(&input, 64);
    image(&output, 64);
    let device = start(
        kind,
        vec![
            Export { backing: Backing::File(input), writable: false },
            Export { backing: Backing::File(output.clone()), writable: true },
        ],
    );
    let mut from = connect(&device, 0, false);
    let mut to = connect(&device, 1, true);
    assert_eq!(from.config(0, 8), 64_u64.to_le_bytes());
    for sector in [0_u64, 5, 63] {
        assert_eq!(from.read(sector, 512), Outcome::Done { status: OK, len: 513 });
        assert_eq!(from.get(DATA, 512), bytes[sector as usize * 512..][..512]);
        to.put(DATA, &from.get(DATA, 512));
        assert!(matches!(to.write(63 - sector, 512), Outcome::Done { status: OK, .. }));
    }
    assert!(matches!(to.flush(), Outcome::Done { status: OK, .. }));
    let written = fs::read(&output).unwrap();
    for sector in [0_usize, 5, 63] {
        assert_eq!(written[(63 - sector) * 512..][..512], bytes[sector * 512..][..512]);
    }
    // A read-only export refuses to be written to, and goes on; so does the end of the disk.
    assert!(matches!(from.write(0, 512), Outcome::Done { status: IOERR, .. }));
    assert!(matches!(from.read(64, 512), Outcome::Done { status: IOERR, .. }));
    assert!(matches!(from.read(63, 1024), Outcome::Done { status: IOERR, .. }));
    assert!(matches!(from.read(7, 512), Outcome::Done { status: OK, .. }));
    assert_eq!(from.get(DATA, 512), bytes[7 * 512..][..512]);
    // An indirect table, elsewhere in the pool.
    let table = 0x3400;
    from.header(0, 9);
    from.describe(table, 0, POOL + 0x3000, 16, NEXT, 1);
    from.describe(table, 1, POOL + DATA, 512, NEXT | WRITE, 2);
    from.describe(table, 2, POOL + 0x3100, 1, WRITE, 0);
    from.describe(0, 3, POOL + table, 48, INDIRECT, 0);
    assert_eq!(from.submit(3), Outcome::Done { status: OK, len: 513 });
    assert_eq!(from.get(DATA, 512), bytes[9 * 512..][..512]);
    drop((from, to));
    let exit = device.stop().unwrap();
    assert_eq!(exit.status.code().unwrap_or(0), 0, "{exit}");
}

pub(crate) fn serves_files_without_a_name_and_null(kind: Kind) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let ours = file.try_clone().unwrap();
    let device = start(
        kind,
        vec![
            Export { backing: Backing::Opened(file), writable: true },
            Export { backing: Backing::Null { size: 4096 }, writable: false },
        ],
    );
    let mut front = connect(&device, 0, true);
    front.put(DATA, &[0x77; 4096]);
    assert!(matches!(front.write(8, 4096), Outcome::Done { status: OK, .. }));
    let mut bytes = vec![0; 4096];
    ours.read_exact_at(&mut bytes, 4096).unwrap();
    assert_eq!(bytes, [0x77; 4096]);
    let mut front = connect(&device, 1, false);
    assert_eq!(front.config(0, 8), 8_u64.to_le_bytes());
    front.put(DATA, &[0x77; 4096]);
    assert!(matches!(front.read(0, 4096), Outcome::Done { status: OK, .. }));
    assert_eq!(front.get(DATA, 4096), [0; 4096]);
}

pub(crate) fn serves_one_connection_at_a_time(kind: Kind) {
    let device = null(kind);
    let first = device.connect(0).unwrap();
    let second = device.connect_within(0, Duration::from_millis(300));
    assert!(matches!(second, Err(DeviceError::Unanswered { export: 0, .. })), "{second:?}");
    drop(first);
    let mut third = connect(&device, 0, true);
    assert_eq!(third.read(0, 512), Outcome::Done { status: OK, len: 513 });
    assert!(matches!(device.connect(1), Err(DeviceError::NoSuchExport { export: 1, count: 1 })));
}

/// Requests that are well-formed, lie in shared memory, and cannot be served.
pub(crate) fn answers_the_senseless_with_an_error(kind: Kind) {
    let device = null(kind);
    let mut front = connect(&device, 0, true);
    let done = |status, len| Outcome::Done { status, len };
    front.put(DATA, &[0xAB; 1024]);
    assert_eq!(front.read(0, 511), done(IOERR, 512));
    assert_eq!(front.get(DATA, 511), [0; 511], "what it reports as written it wrote");
    assert_eq!(front.get(DATA + 511, 1), [0xAB], "and no byte more");
    for sector in [2048, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1] {
        assert_eq!(front.read(sector, 512), done(IOERR, 513));
    }
    assert_eq!(front.write(2047, 1024), done(IOERR, 1));
    assert_eq!(front.request(77, 0, POOL + DATA, 512), done(UNSUPP, 513));
    assert_eq!(front.request(8, 0, POOL + DATA, 20), done(OK, 21));
    assert_eq!(front.get(DATA, 20), *b"coco-dma embedded\0\0\0");
    // The header in two pieces, the data and the status in one: allowed.
    front.header(0, 1);
    front.put(DATA, &[0xAB; 514]);
    front.describe(0, 0, POOL + 0x3000, 7, NEXT, 1);
    front.describe(0, 1, POOL + 0x3007, 9, NEXT, 2);
    front.describe(0, 2, POOL + DATA, 513, WRITE, 0);
    assert_eq!(front.submit(0), done(0xEE, 513), "the status is elsewhere");
    assert_eq!(front.get(DATA, 513), [0; 513]);
    assert_eq!(front.get(DATA + 513, 1), [0xAB]);
    assert_eq!(front.write(2047, 512), done(OK, 1));
    assert_eq!(front.flush(), done(OK, 1));
    assert_eq!(device.last_words(), Vec::<String>::new());
}

pub(crate) fn config_honours_offset_and_size(kind: Kind) {
    let device = null(kind);
    let mut front = connect(&device, 0, true);
    assert_eq!(front.config(0, 4), 2048_u32.to_le_bytes());
    assert_eq!(front.config(4, 4), [0; 4]);
    assert_eq!(front.config(20, 4), 512_u32.to_le_bytes());
    assert_eq!(front.config(34, 2), 1_u16.to_le_bytes());
    assert_eq!(front.config(0, 60).len(), 60);
}

/// A ring that is never empty holds the device no longer than its connection.
pub(crate) fn a_ring_without_end_can_be_left(kind: Kind) {
    let device = null(kind);
    // Both rings at one place: the available index is the used index, and stays five ahead of
    // what the device has taken. Every head in it is a used element's 0 or 1: flushes both.
    let front = Front::with_rings(device.connect(0).unwrap(), true, 0x2000, 0x2000, 5);
    front.header(4, 0);
    for head in [0, 1] {
        front.describe(0, head, POOL + 0x3000, 16, NEXT, 2);
    }
    front.describe(0, 2, POOL + 0x3100, 1, WRITE, 0);
    front.enable();
    front.kick();
    std::thread::sleep(Duration::from_millis(100));
    let early = front.get(0x2002, 2);
    let moves = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        front.get(0x2002, 2) != early
    });
    assert!(moves, "the ring came to an end: {:?}", device.last_words());
    drop(front);
    let mut front = connect(&device, 0, true);
    assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
}

/// A disk described in QEMU's words: the first read fails, the next works.
pub(crate) fn in_its_own_words(kind: Kind) {
    let args = [
        "--blockdev",
        "driver=null-co,node-name=n,size=65536,read-zeroes=on",
        "--blockdev",
        r#"{"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{"event":"none","iotype":"read","errno":5,"once":true}]}"#,
    ];
    let args = args.map(str::to_owned).to_vec();
    let backing = Backing::Blockdev { args, node: "b".to_owned() };
    let device = start(kind, vec![Export { backing, writable: true }]);
    let mut front = connect(&device, 0, true);
    assert!(matches!(front.read(0, 512), Outcome::Done { status: IOERR, .. }));
    assert!(matches!(front.read(0, 512), Outcome::Done { status: OK, .. }));
}
