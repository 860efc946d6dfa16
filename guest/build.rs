//! A kernel's link: no start files, no libraries, and a place for everything.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");
    let script = concat!("-Wl,-T,", env!("CARGO_MANIFEST_DIR"), "/link.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--gc-sections",
        script,
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
