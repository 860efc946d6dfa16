//! Connections, one after the other, on every export.

use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::thread;

use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::backend::Device;
use super::disk::Disk;
use super::say;

/// Serves every export on a thread of its own. Answers with the first reason to stop.
pub(super) fn serve_all(exports: Vec<(UnixListener, Disk)>) -> Result<Infallible, String> {
    let (stopped, first) = mpsc::channel();
    for (listener, disk) in exports {
        let stopped = stopped.clone();
        thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || {
                let Err(reason) = serve(listener, disk);
                let _ = stopped.send(reason);
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    // So that a thread that ends without a reason (a panic) ends the wait too.
    drop(stopped);
    Err(first.recv().unwrap_or_else(|_| "every export has stopped".to_owned()))
}

fn serve(listener: UnixListener, disk: Disk) -> Result<Infallible, String> {
    let mut listener = Listener::from(listener);
    let disk = Arc::new(disk);
    loop {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let device = Arc::new(Device::new(Arc::clone(&disk), memory.clone()));
        let mut daemon = VhostUserDaemon::new("connection".to_owned(), Arc::clone(&device), memory)
            .map_err(|error| format!("cannot prepare for a connection: {error}"))?;
        (daemon.start(&mut listener))
            .map_err(|error| format!("cannot accept a connection: {error}"))?;
        device.attach(daemon.shutdown_handle());
        let ended = daemon.wait();
        device.close();
        device.exit.close_after(daemon);
        match ended {
            Ok(()) => {}
            Err(DaemonError::HandleRequest(
                ProtocolError::Disconnected
                | ProtocolError::PartialMessage
                | ProtocolError::SocketBroken(_),
            )) => {}
            Err(error) => say(format_args!("closed a connection: {error}")),
        }
    }
}
