//! What the compiler and its companions say.

use anyhow::Result;

use crate::shell::Workshop;

pub(super) fn fmt(shop: &mut Workshop) -> Result<()> {
    shop.run(&mut shop.cargo("fmt --all --check"))?;
    shop.run(&mut shop.cargo("fmt --manifest-path gate/Cargo.toml --check"))
}

pub(super) fn clippy(shop: &mut Workshop) -> Result<()> {
    shop.run(
        &mut shop.cargo("clippy --workspace --all-targets --all-features --locked -- -D warnings"),
    )
}

pub(super) fn release(shop: &mut Workshop) -> Result<()> {
    shop.run(&mut shop.cargo("build --release --locked"))
}

pub(super) fn doc(shop: &mut Workshop) -> Result<()> {
    let mut doc = shop.cargo("doc --no-deps --workspace --all-features --locked");
    shop.run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}
