//! Devices that report more bytes than they wrote: the driver sees zeroes, and never what lay in
//! the pool before.
// UNSAFETY: a queue keeps addresses of buffers beyond the call that it is given them in.
#![expect(unsafe_code)]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma_vhost::device::DeviceProcess;
use coco_dma_vhost::disk::{Request, Status};
use coco_dma_vhost::front::Front;
use coco_dma_vhost::machine::Layer;
use coco_dma_virtio::{Adaptor, Record};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use crate::bench::{POOL, TestHal, next, on, with_disk};
use crate::hostile::{TYPED, Trick, launch};

/// What lies in the pool before.
const OLD: u8 = 0xEE;

/// Fills the whole pool, as its earlier users would.
fn soil(layer: &Layer<'_>) {
    let pool = layer.machine().shared().first().unwrap();
    let old = vec![OLD; POOL];
    assert_eq!(rustix::io::pwrite(pool.region.file(), &old, 0), Ok(POOL));
}

fn typed_and_zeroes(seen: &[u8]) {
    let (typed, rest) = seen.split_at(TYPED.len());
    assert_eq!(typed, TYPED);
    assert!(!rest.contains(&OLD), "old bytes of the pool");
    assert!(rest.iter().all(|byte| *byte == 0));
}

pub(crate) fn what_a_device_did_not_write_is_zero() {
    on(PlatformName::Tdx, POOL, |layer| {
        let dir = tempfile::tempdir().unwrap();
        let process = DeviceProcess::start(&launch(dir.path(), Trick::SomethingTyped)).unwrap();
        soil(layer);
        with_disk(layer, &process, 0, |mut disk, _| {
            let mut buffer = layer.machine().arena().take(4096).unwrap();
            buffer.bytes_mut().fill(0xAA);
            let _ = disk.submit(Request::read(0, buffer, 4096)).unwrap();
            let done = next(&mut disk);
            assert_eq!(done.status, Status::Ok);
            typed_and_zeroes(done.request.data.unwrap().private().unwrap().bytes());
        });
    });
}

/// A process of this test's.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until it works.
fn patiently<T, E: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `vhost-device-console`, which somebody else wrote, completes a buffer once for each byte that it
/// puts into it: what it reports has little to do with what it wrote. Optional: it has to be built
/// (`cargo install vhost-device-console`).
pub(crate) fn a_console_shows_what_was_typed_and_zeroes() {
    const PROGRAM: &str = "vhost-device-console";
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir: PathBuf| dir.join(PROGRAM).is_file()) {
        // Not in the words that make a check incomplete: no machine has to have it.
        eprintln!("OPTIONAL, LEFT OUT: {PROGRAM} is not in PATH; our own device plays its part");
        return;
    }
    on(PlatformName::Tdx, POOL, |layer| {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let socket = dir.path().join("con.sock");
        let command = Command::new(PROGRAM)
            .arg("-s")
            .arg(&socket)
            .args(["-b", "network", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _console = Started(command.unwrap());
        let stream = patiently(|| UnixStream::connect(dir.path().join("con.sock0")));
        soil(layer);
        typed_and_zeroes(&receive(layer, stream, port));
    });
}

/// Types something and receives it, in a buffer of 256 bytes.
fn receive(layer: &Layer<'_>, stream: UnixStream, port: u16) -> Vec<u8> {
    let records: Vec<Record> = (0..8).map(|_| Record::new()).collect();
    let device = layer.dma().bind(Endpoint::new("console"), Limits::NONE).unwrap();
    let adaptor = &Adaptor::new(device, &records);
    // SAFETY: the queues are declared after the guard, and the guard after the adaptor.
    let _bound = unsafe { TestHal::bind(&adaptor) }.unwrap();
    let mut front = Front::connect_once(stream, layer.machine()).unwrap();
    front.write_driver_features(1 << 32);
    let mut input = VirtQueue::<TestHal, 16>::new(&mut front, 0, false, false).unwrap();
    let _output = VirtQueue::<TestHal, 16>::new(&mut front, 1, false, false).unwrap();
    front.check().unwrap();
    // It listens to nobody before it may write.
    front.notify(1);
    let mut buffer = layer.machine().arena().take(256).unwrap();
    buffer.bytes_mut().fill(0xAA);
    // SAFETY: the buffer stays as it is until it is popped.
    let token = unsafe { input.add(&[], &mut [buffer.bytes_mut()]) }.unwrap();
    let mut typist = patiently(|| TcpStream::connect(("127.0.0.1", port)));
    // It may not have looked at the queue yet, and forgets what comes before.
    std::thread::sleep(Duration::from_millis(200));
    typist.write_all(TYPED).unwrap();
    patiently(|| if input.can_pop() { Ok(()) } else { Err("nothing was received") });
    // The first byte is not the last.
    std::thread::sleep(Duration::from_millis(100));
    // SAFETY: the same buffer.
    let written = unsafe { input.pop_used(token, &[], &mut [buffer.bytes_mut()]) }.unwrap();
    println!("it reports {written} bytes first");
    buffer.bytes().to_vec()
}
