//! A machine that promises nothing.
// UNSAFETY: what is implemented is a promise; the misuse does not make it.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::State;
use coco_dma::state::Visibility;

pub struct Bare;

macro_rules! implement {
    ($($promise:tt)?) => {
        $($promise)? impl Platform for Bare { //~ E0200
            fn regime(&self) -> Regime {
                Regime::Open
            }

            fn locate(&self, _: NonNull<[u8]>) -> Option<PhysRange> {
                None
            }

            unsafe fn convert(&self, _: PhysRange, _: Visibility) -> Result<(), ConvertError> {
                Err(ConvertError { done: 0, doubt: 0, code: 0 })
            }

            unsafe fn map_cpu(
                &self,
                _: PhysRange,
                _: State,
                _: CacheMode,
                _: Context,
            ) -> Result<NonNull<u8>, NoView> {
                Err(NoView)
            }

            unsafe fn unmap_cpu(&self, _: NonNull<u8>, _: PhysRange) {}
        }
    };
}

#[cfg(not(misuse))]
implement!(unsafe);
#[cfg(misuse)]
implement!();
