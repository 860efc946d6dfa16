//! Builds the case files into the library: a list of their names and texts.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let missing = |name: &str| io::Error::other(format!("cargo sets {name}"));
    let out = env::var_os("OUT_DIR").ok_or_else(|| missing("OUT_DIR"))?;
    let here = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| missing("CARGO_MANIFEST_DIR"))?;
    let folder = PathBuf::from(here).join("../../cases");
    println!("cargo::rerun-if-changed=../../cases");
    let mut files = Vec::new();
    walk(&folder, &folder, &mut files)?;
    files.sort();
    let mut list = String::from("/// The files of the folder `cases`.\n");
    list += "const BUILT_IN: &[(&str, &str)] = &[\n";
    for file in files {
        let path = "concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../../cases/";
        list += &format!("    ({file:?}, include_str!({path}{file}\"))),\n");
    }
    list += "];\n";
    fs::write(Path::new(&out).join("built_in.rs"), list)
}

fn walk(folder: &Path, root: &Path, files: &mut Vec<String>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, root, files)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            files.push(name.replace('\\', "/"));
        }
    }
    Ok(())
}
