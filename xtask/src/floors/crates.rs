//! Which crate depends on which, from what `cargo metadata` says.

use anyhow::{Context, Result};
use serde_json::Value;

use super::table::{CRATES, Crate, Others};

/// Every violation, as `crate: why`.
pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata without packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some(rule) = CRATES.iter().find(|rule| rule.name == name) else {
            errors.push(format!("{name}: no such crate in the table: enter it"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        for dependency in dependencies.iter().filter(|dependency| dependency["kind"] != "dev") {
            if let Some(why) = objection(rule, dependency) {
                errors.push(format!("{name}: {why}"));
            }
        }
    }
    Ok(errors)
}

fn objection(rule: &Crate, dependency: &Value) -> Option<String> {
    let name = dependency["name"].as_str().unwrap_or_default();
    if CRATES.iter().any(|rule| rule.name == name) {
        let fits = rule.ours.contains(&name);
        return (!fits).then(|| format!("may not depend on {name}, which stands above or beside"));
    }
    let target = dependency["target"].as_str();
    let model = target == Some(&format!("cfg({name})"));
    let optional = dependency["optional"].as_bool().unwrap_or(false);
    match rule.others {
        Others::Any => None,
        Others::Only(names) if names.contains(&name) => None,
        Others::Optional(names) if names.contains(&name) && (optional || model) => None,
        Others::Optional(names) if names.contains(&name) => {
            Some(format!("{name} has to be optional, or under cfg({name})"))
        }
        Others::Only(names) | Others::Optional(names) => {
            Some(format!("may not depend on {name}; the table lets it have {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(name: &str, dependency: Value) -> Vec<String> {
        check(&json!({"packages": [{"name": name, "dependencies": [dependency]}]})).unwrap()
    }

    #[test]
    fn the_core_requires_nothing() {
        assert_eq!(errors("coco-dma", json!({"name": "log", "kind": null})).len(), 1);
        assert_eq!(errors("coco-dma", json!({"name": "bitflags", "kind": null})).len(), 1);
        assert_eq!(errors("coco-dma", json!({"name": "loom", "kind": null})).len(), 1);
        assert_eq!(errors("coco-dma", json!({"name": "bitflags", "optional": true})).len(), 0);
        assert_eq!(errors("coco-dma", json!({"name": "loom", "target": "cfg(loom)"})).len(), 0);
        assert_eq!(errors("coco-dma", json!({"name": "shuttle", "target": "cfg(loom)"})).len(), 1);
        assert_eq!(errors("coco-dma", json!({"name": "proptest", "kind": "dev"})).len(), 0);
    }

    #[test]
    fn crates_depend_downwards() {
        assert_eq!(errors("coco-dma", json!({"name": "coco-dma-virtio"})).len(), 1);
        assert_eq!(errors("coco-dma-virtio", json!({"name": "coco-dma-vhost"})).len(), 1);
        assert_eq!(errors("coco-dma-virtio", json!({"name": "libc"})).len(), 1);
        assert_eq!(errors("coco-dma-vhost", json!({"name": "coco-dma-virtio"})).len(), 0);
        assert_eq!(errors("coco-dma-attic", json!({"name": "libc"})).len(), 1);
    }
}
