//! Planted violations, as sources in strings.

use super::*;

const ROOT: &str = "pub mod addr; pub mod plan; mod platform; pub mod pool; mod ledger; mod stream; \
                    pub use addr::{PhysAddr, DmaAddr as Dma}; pub use pool::Pool;";

/// Violations with `text` as the source of `module`, all other modules being empty.
fn with(module: &str, text: &str) -> Vec<String> {
    check(&|path: &Path| match path.to_str()? {
        "lib.rs" => Some(ROOT.to_owned()),
        "plan/inner.rs" => (module == "plan/inner").then(|| text.to_owned()),
        "plan.rs" if module == "plan/inner" => Some("mod inner;".to_owned()),
        other if other.strip_suffix(".rs")? == module => Some(text.to_owned()),
        other if other.contains('/') => None,
        _ => Some(String::new()),
    })
    .unwrap()
}

#[test]
fn imports_go_down() {
    assert_eq!(with("plan", "use crate::addr::PhysAddr;"), [""; 0]);
    assert_eq!(with("stream", "use crate::{addr, plan::{Plan, Way}, pool::Pool};"), [""; 0]);
    assert_eq!(with("pool", "use super::addr::PhysAddr;"), [""; 0]);
}

#[test]
fn imports_do_not_go_up() {
    let errors = with("plan", "\nuse crate::pool::Pool;");
    assert_eq!(
        errors,
        ["plan.rs:2: `plan` on floor 2 may not know `pool` on floor 3: imports go down"]
    );
    assert_eq!(with("addr", "fn f(x: &crate::stream::Map) {}").len(), 1);
    assert_eq!(with("plan", "use crate::{addr, pool::Pool, stream as s};").len(), 2);
}

#[test]
fn neighbours_do_not_know_each_other() {
    let errors = with("pool", "use crate::ledger::Ledger;");
    assert_eq!(errors, ["pool.rs:1: `pool` and `ledger` share floor 3: neither knows the other"]);
    assert_eq!(with("plan", "use crate::platform::Platform;").len(), 1);
}

#[test]
fn no_way_round_is_missed() {
    // through an export of the root
    assert_eq!(with("plan", "use crate::Pool;").len(), 1);
    assert_eq!(with("plan", "use crate::Dma;").len(), 0);
    // through super, from the top module and from a room inside it
    assert_eq!(with("plan", "use super::pool::Pool;").len(), 1);
    assert_eq!(with("plan/inner", "use super::super::pool::Pool;").len(), 1);
    assert_eq!(with("plan/inner", "use super::Plan; use crate::plan::Way;").len(), 0);
    assert_eq!(with("plan", "mod inner { use super::super::pool::Pool; }").len(), 1);
    assert_eq!(with("plan", "mod inner { fn f() { super::f() } }").len(), 0);
    // in a macro's arguments, deep in a body
    assert_eq!(with("plan", "fn f() { g!(h(|| crate::pool::Pool::new())) }").len(), 1);
    // by a glob of everything
    assert_eq!(with("plan", "use crate::*;").len(), 1);
}

#[test]
fn tests_and_comments_may_name_anything() {
    assert_eq!(with("plan", "// crate::pool::X\n/// [crate::pool::X]\nfn f() {}"), [""; 0]);
    assert_eq!(with("plan", "#[cfg(test)] mod tests { use crate::pool::Pool; }"), [""; 0]);
    assert_eq!(with("plan", "#[cfg(test)]\nmod tests;"), [""; 0]);
    assert_eq!(with("plan", "#[cfg(test)] mod t { } use crate::pool::Pool;").len(), 1);
}

#[test]
fn an_unknown_module_has_to_be_entered() {
    let errors = check(&|path: &Path| match path.to_str()? {
        "lib.rs" => Some("mod cellar;".to_owned()),
        "cellar.rs" => Some(String::new()),
        _ => None,
    });
    assert_eq!(
        errors.unwrap(),
        ["lib.rs:1: module `cellar` stands on no floor: enter it in the table"]
    );
    assert_eq!(with("plan", "use crate::attic::X;").len(), 1);
}
