//! What the compiler and its companions say.

use anyhow::Result;

use crate::shell::Workshop;

pub(super) fn fmt(shop: &mut Workshop) -> Result<()> {
    shop.run(&mut shop.cargo("fmt --all --check"))?;
    shop.run(&mut shop.cargo("fmt --manifest-path gate/Cargo.toml --check"))?;
    shop.run(&mut shop.cargo("fmt --manifest-path guest/Cargo.toml --check"))
}

pub(super) fn clippy(shop: &mut Workshop) -> Result<()> {
    shop.run(
        &mut shop.cargo("clippy --workspace --all-targets --all-features --locked -- -D warnings"),
    )?;
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))) {
        shop.omitted.add("clippy: the guest is for x86_64-unknown-linux-gnu".to_owned());
        return Ok(());
    }
    // The guest's own folder says with which target and flags.
    let mut guest = shop.cargo("clippy --release --locked");
    guest.current_dir(shop.root.join("guest")).env("CARGO_TARGET_DIR", shop.target.join("guest"));
    shop.run(guest.args(["--", "-D", "warnings"]))
}

pub(super) fn release(shop: &mut Workshop) -> Result<()> {
    shop.run(&mut shop.cargo("build --release --locked"))
}

pub(super) fn doc(shop: &mut Workshop) -> Result<()> {
    let mut doc = shop.cargo("doc --no-deps --workspace --all-features --locked");
    shop.run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}
