//! Each misuse in `tests/compile-fail` is refused by the compiler, for the right reason and at the
//! right place; and the same code without the misuse compiles.
//!
//! A case is one file, compiled twice. With `--cfg misuse` the errors are exactly those that its
//! `//~ E0382` marks say, by code and line. Without it there are none: what is refused is the
//! misuse, and nothing else about the code.
//!
//! The library depends on nothing, so that it is compiled here, once, with the features that the
//! cases need: no guess at which of Cargo's files is the right one.
#![cfg(not(any(loom, miri)))]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::Mutex;
use std::thread;

/// How many cases there are: what is not found must not pass.
const CASES: usize = 49;

#[test]
fn every_misuse_is_refused_and_its_counterpart_is_not() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile-fail");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert_eq!(cases.len(), CASES, "cases in {}", tests.display());

    let library = Library::build();
    let (queue, complaints) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { return };
                    if let Err(why) = library.try_case(case) {
                        complaints.lock().unwrap().push(format!("{}: {why}", case.display()));
                    }
                }
            });
        }
    });
    let mut complaints = complaints.into_inner().unwrap();
    complaints.sort();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// What the marks of a case say: code and line.
#[test]
fn marks_and_errors_are_read() {
    let marks = marks("one\ntwo(); //~ E0382 E0505\nthree //~ E0001\n");
    let expected = [(2, "E0382"), (2, "E0505"), (3, "E0001")];
    assert!(marks.iter().map(|(line, code)| (*line, code.as_str())).eq(expected));
    let output = "a/b.rs:7:9: error[E0382]: moved\nb.rs:8:9: warning: x\nb.rs:9:1: error: plain\n\
                  error: aborting due to 2 previous errors\n";
    let expected = [(7, "E0382"), (9, "no code")];
    assert!(errors(output).iter().map(|(line, code)| (*line, code.as_str())).eq(expected));
}

/// The library, compiled for the cases.
struct Library {
    metadata: PathBuf,
    folder: PathBuf,
}

impl Library {
    fn build() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-fail");
        fs::create_dir_all(&folder).unwrap();
        let library = Self { metadata: folder.join("libcoco_dma.rmeta"), folder };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        let output = rustc(&source)
            .args(["--crate-name=coco_dma", "--cfg=feature=\"alloc\"", "-o"])
            .arg(&library.metadata)
            .output()
            .unwrap();
        assert!(output.status.success(), "the library does not compile:\n{}", text(&output));
        library
    }

    fn try_case(&self, case: &Path) -> Result<(), String> {
        let wanted = marks(&fs::read_to_string(case).map_err(|error| error.to_string())?);
        if wanted.is_empty() {
            return Err("has no `//~ CODE` mark".to_owned());
        }
        let plain = self.compile(case, &[]);
        if !plain.status.success() {
            return Err(format!("does not compile without the misuse:\n{}", text(&plain)));
        }
        let misuse = self.compile(case, &["--cfg=misuse"]);
        let found = errors(&text(&misuse));
        if misuse.status.success() {
            Err("THE MISUSE COMPILES".to_owned())
        } else if found != wanted {
            let text = text(&misuse);
            Err(format!("is refused for {found:?}, not for {wanted:?} (line, code):\n{text}"))
        } else {
            Ok(())
        }
    }

    fn compile(&self, case: &Path, more: &[&str]) -> Output {
        let mut name = OsString::from("--extern=coco_dma=");
        name.push(&self.metadata);
        // Both ways side by side, and every case by itself.
        let mut out = self.folder.join(case.file_stem().unwrap_or_default());
        out.set_extension(if more.is_empty() { "plain" } else { "misuse" });
        rustc(case)
            .args(["--crate-name=case", "--check-cfg=cfg(misuse)"])
            .args(more)
            .arg(name)
            .arg("-o")
            .arg(out)
            .output()
            .unwrap()
    }
}

/// The compiler of this build, for one file, without code generation.
fn rustc(source: &Path) -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=short"])
        .args(["--cap-lints=allow", "--color=never"])
        .arg(source);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `(line, code)` of every mark in a source.
fn marks(source: &str) -> Vec<(usize, String)> {
    let mut marks = Vec::new();
    for (line, text) in (1..).zip(source.lines()) {
        if let Some((_, codes)) = text.split_once("//~ ") {
            marks.extend(codes.split_whitespace().map(|code| (line, code.to_owned())));
        }
    }
    marks
}

/// `(line, code)` of every error in the compiler's short format, `FILE:LINE:COLUMN: error[CODE]:
/// ..`, sorted and each once. The last line, which counts them, has no place.
fn errors(output: &str) -> Vec<(usize, String)> {
    let mut errors = Vec::new();
    for text in output.lines() {
        let Some((place, what)) = text.split_once(": error") else { continue };
        let Some(line) = place.rsplit(':').nth(1).and_then(|line| line.parse().ok()) else {
            continue;
        };
        let code = what.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        errors.push((line, code.map_or("no code", |(code, _)| code).to_owned()));
    }
    errors.sort();
    errors.dedup();
    errors
}
