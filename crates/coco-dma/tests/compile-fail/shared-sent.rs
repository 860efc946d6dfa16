//! Two threads of one program race on shared memory.

use coco_dma::shared::SharedBytes;

pub fn look(shared: SharedBytes<'_>) {
    #[cfg(misuse)]
    std::thread::scope(|scope| {
        scope.spawn(move || shared.len()); //~ E0277
    });
    let _ = shared.len();
}
